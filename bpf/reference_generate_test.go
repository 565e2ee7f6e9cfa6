// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/podmeter/podmeter/internal/ktest"
)

// BPF_PROG_TEST_RUN takes packets of these lengths, at least.
const minPacket, maxPacket = 14, 3500

// dice decides what a packet looks like: from the bytes of a fuzzer, which are
// zeros after their end, or from a pseudo-random sequence.
type dice struct {
	data     []byte
	sequence *rand.Rand
}

func newDice(seed, stream uint64) *dice {
	return &dice{sequence: rand.New(rand.NewPCG(seed, stream))}
}

func (d *dice) byte() byte {
	if len(d.data) == 0 && d.sequence != nil {
		d.data = binary.LittleEndian.AppendUint64(d.data[:0:0], d.sequence.Uint64())
	}
	if len(d.data) == 0 {
		return 0
	}
	b := d.data[0]
	d.data = d.data[1:]
	return b
}

func (d *dice) uint16() uint16 { return uint16(d.byte())<<8 | uint16(d.byte()) }

// below returns a number in [0, n), n at most 65,536.
func (d *dice) below(n int) int { return int(d.uint16()) * n >> 16 }

// percent is true in so many of 100 cases.
func (d *dice) percent(n int) bool { return d.below(100) >= 100-n }

func (d *dice) bytes(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = d.byte()
	}
	return data
}

// one returns one of the values.
func one[T any](d *dice, values ...T) T { return values[d.below(len(values))] }

// packet makes a packet that program run takes.
func (d *dice) packet() []byte { return runnable(d.mutated()) }

// mutated makes a frame: mostly sound, sometimes with bytes changed, cut off or
// added.
func (d *dice) mutated() []byte {
	packet := d.frame()
	if d.percent(25) {
		for range 1 + d.below(4) {
			packet[d.below(len(packet))] = d.byte()
		}
	}
	if d.percent(20) {
		packet = packet[:minPacket+d.below(len(packet)-minPacket+1)]
	}
	if d.percent(10) {
		packet = append(packet, d.bytes(d.below(64))...)
	}
	return packet
}

// runnable returns the packet as program run takes it. It refuses an IP packet
// that is shorter than the fixed header: one gets a tag, which hides that.
func runnable(packet []byte) []byte {
	if len(packet) < minPacket {
		packet = append(packet, make([]byte, minPacket-len(packet))...)
	}
	least := map[uint16]int{0x0800: 20, 0x86dd: 40}[binary.BigEndian.Uint16(packet[12:])]
	if len(packet) < minPacket+least {
		packet = ktest.Packet(packet[:12], []byte{0x81, 0, 0, 7}, packet[12:])
	}
	return packet[:min(len(packet), maxPacket)]
}

func (d *dice) frame() []byte {
	ethertype, network := d.network()
	if d.percent(5) {
		ethertype = d.ethertype()
	}
	var tags []byte
	if d.percent(30) {
		for range 1 + d.below(5) {
			tags = append(tags, ktest.VLAN(d.uint16(), one[uint16](d, 0x8100, 0x88a8))...)
		}
		// The first EtherType stands in the Ethernet header, the last behind the tags.
		first := binary.BigEndian.Uint16(tags[2:])
		binary.BigEndian.PutUint16(tags[len(tags)-2:], ethertype)
		ethertype = first
	}
	frame := ktest.Packet(ktest.Ethernet(ethertype), tags, network)
	copy(frame, d.bytes(12))
	return frame
}

func (d *dice) ethertype() uint16 {
	return one(d, 0x0800, 0x86dd, 0x8100, 0x88a8, 0x9100, 0x0806, 0x8847, 0x88cc, 0xffff, uint16(d.below(0x600)), d.uint16())
}

// network returns an EtherType and what follows it.
func (d *dice) network() (uint16, []byte) {
	switch d.below(16) {
	case 0, 1:
		return d.ethertype(), d.bytes(d.below(64))
	case 2, 3, 4, 5, 6, 7:
		return 0x0800, d.ipv4()
	default:
		return 0x86dd, d.ipv6()
	}
}

func (d *dice) ipv4() []byte {
	var options []byte
	if d.percent(30) {
		options = d.options(4 * d.below(11))
	}
	protocol := d.protocol()
	header := ktest.IPv4(src4, dst4, protocol, options...)
	copy(header[12:20], d.bytes(8))
	packet := ktest.Packet(header, d.transport(protocol))
	binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
	if d.percent(20) {
		binary.BigEndian.PutUint16(packet[2:], one(d, 0, d.uint16(), uint16(d.below(80))))
	}
	if d.percent(25) {
		binary.BigEndian.PutUint16(packet[6:], one(d, 0x4000, 0x2000, 0x8000, d.uint16(), 0x2000|uint16(d.below(4))))
	}
	if d.percent(5) {
		packet[0] = d.byte()
	}
	return packet
}

// options returns options of an IPv4 header, or what stands there instead.
func (d *dice) options(length int) []byte {
	options := d.bytes(length)
	for at := 0; at < length && d.percent(90); {
		kind := one(d, 0, 1, 7, 68, 131, d.byte())
		options[at] = kind
		at++
		if kind > 1 && at < length {
			options[at] = byte(2 + d.below(max(length-at-1, 1)))
			at += int(options[at]) - 1
		}
	}
	return options
}

func (d *dice) ipv6() []byte {
	chain := []byte{} // of next header numbers
	if d.percent(60) {
		for range d.below(11) {
			chain = append(chain, d.extensionNumber())
		}
	}
	protocol := d.protocol()
	chain = append(chain, protocol)
	header := ktest.IPv6(src6, dst6, chain[0])
	copy(header[8:40], d.bytes(32))
	packet := header
	for i, number := range chain[:len(chain)-1] {
		packet = append(packet, d.extension(number, chain[i+1])...)
	}
	packet = append(packet, d.transport(protocol)...)
	binary.BigEndian.PutUint16(packet[4:], uint16(len(packet)-40))
	if d.percent(15) {
		binary.BigEndian.PutUint16(packet[4:], one(d, 0, d.uint16(), uint16(d.below(80))))
	}
	if d.percent(5) {
		packet[0] = d.byte()
	}
	return packet
}

// extensionNumber returns one of the extension headers that are walked, or
// seldom one that is none or is not.
func (d *dice) extensionNumber() byte {
	if d.percent(4) {
		return one[byte](d, noNext, 50, 135, 139, 140, 253, 4, 41, d.byte())
	}
	return one[byte](d, hopByHop, routing, fragment, ah, dstOp)
}

func (d *dice) extension(number, next byte) []byte {
	units := byte(d.below(4))
	if d.percent(3) {
		units = d.byte()
	}
	var header []byte
	switch number {
	case fragment:
		offset := one[uint16](d, 0, 0, 0, 0, 0, 0, 1, d.uint16()>>3)
		header = ktest.IPv6Fragment(next, offset)
		header[1] = d.byte() // reserved
		header[3] = header[3]&^7 | d.byte()&7
	case ah:
		header = ktest.Authentication(next, units)
		copy(header[2:], d.bytes(len(header)-2))
	default:
		header = ktest.Extension(next, units)
		if d.percent(20) {
			copy(header[2:], d.bytes(len(header)-2))
		} else if d.percent(5) {
			copy(header[2:], []byte{0xc2, 4, 0, 1}) // jumbo payload
		}
	}
	if d.percent(2) {
		header[1] = d.byte()
	}
	return header
}

func (d *dice) protocol() byte {
	if d.percent(15) {
		return one(d, d.byte(), hopByHop, routing, fragment, ah, dstOp, noNext, gre, 2, 4, 33, 41, 50, 136)
	}
	return one[byte](d, tcp, udp, sctp, icmp, icmpv6)
}

// transport returns a header of the protocol, and data that may be none.
func (d *dice) transport(protocol byte) []byte {
	data := d.bytes(d.below(24))
	switch protocol {
	case tcp:
		header := d.bytes(20)
		if d.percent(90) {
			header[12] = 5<<4 | header[12]&0xf
		}
		return append(header, data...)
	case udp:
		header := d.bytes(8)
		binary.BigEndian.PutUint16(header[4:], uint16(8+len(data)-d.below(2)*d.below(9)))
		return append(header, data...)
	case sctp:
		return append(d.bytes(12), data...)
	case icmp, icmpv6:
		return append(d.bytes(8), data...)
	case ah:
		return append(d.extension(ah, one[byte](d, tcp, udp, icmp, ah, hopByHop)), d.bytes(20)...)
	default:
		return data
	}
}
