// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"slices"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// A difference is one thing that the meter and gopacket judge differently on
// purpose. Its edit rewrites the one field in question so that gopacket judges
// it as the meter does, and says whether it had to; what then remains of the
// packet has to be judged the same, so that a difference hides nothing else.
type difference struct {
	name   string
	reason string
	edit   func(h *header) bool
}

// differences is the written list. The order counts: an edit finds what those
// before it left.
func differences() []difference {
	return slices.Concat(ipv4Differences(), ipv6Differences(), transportDifferences())
}

func ipv4Differences() []difference {
	return []difference{
		{"raw IP EtherType", "gopacket takes EtherType 0xffff for IPv4; it is reserved, and no IPv4 on a wire", rawEthertype},
		{"IPv4 header cut", "the packet ends within the IPv4 options: gopacket gives up, the meter keeps addresses and protocol", ipv4Cut},
		{"IPv4 total length", "the meter counts what is there and trusts no length field: 0 is what large GSO packets carry", ipv4Length},
		{"IPv4 options", "gopacket gives up at options that do not fit into their header; the meter steps over them unread", ipv4Options},
		{"IPv4 first fragment", "gopacket takes a first fragment for data; the meter reads the ports that it carries", ipv4FirstFragment},
		{"IPv4 authentication header", "gopacket steps over AH; the meter does so in IPv6 alone", ipv4Authentication},
	}
}

func ipv6Differences() []difference {
	return []difference{
		{"extension header cut", "the packet ends within an extension header of which the first 4 bytes are there: the meter needs no more and names the protocol behind it", extensionCut},
		{"IPv6 payload length", "as with the IPv4 total length; 0 is a jumbogram or a large GSO packet", ipv6Length},
		{"extension options", "gopacket gives up at options that do not fit into their header or jumbo lengths that contradict; the meter steps over them unread", extensionOptions},
		{"authentication header of 8 bytes", "gopacket refuses a length below that of the fixed part (RFC 4302, 2.2); the meter steps over what the length says, as the kernel does", shortAuthentication},
		{"IPv6 first fragment", "as with IPv4", ipv6FirstFragment},
	}
}

func transportDifferences() []difference {
	return []difference{
		{"transport header cut", "gopacket wants the whole header; the meter no more than the ports, or type and code", transportCut},
		{"TCP header length", "gopacket gives up at a data offset or options that do not fit; the meter reads ports alone", tcpOffset},
		{"UDP length", "gopacket refuses a length below that of the header; the meter reads ports alone", udpLength},
	}
}

// set writes bytes into a copy of the header's data, and reports true.
func (h *header) set(offset int, data ...byte) bool {
	h.data = slices.Clone(h.data)
	copy(h.data[offset:], data)
	return true
}

func (h *header) set16(offset int, value uint16) bool {
	return h.set(offset, byte(value>>8), byte(value))
}

// pad appends zeros to a copy of the data until it is so long, and reports
// whether it was shorter.
func (h *header) pad(length int) bool {
	missing := length - len(h.data)
	if missing <= 0 {
		return false
	}
	h.data = append(slices.Clip(h.data), make([]byte, missing)...)
	return true
}

// is reports whether it is such a header of which there are so many bytes.
func (h *header) is(layer gopacket.LayerType, bytes int) bool {
	return h.layer == layer && len(h.data) >= bytes
}

// EtherType 0xffff leads to IPv4 without any other EtherType in between.
func rawEthertype(h *header) bool {
	if h.layer != layers.LayerTypeIPv4 || h.ethertype != layers.EthernetTypeRaw {
		return false
	}
	h.layer = gopacket.LayerTypeZero
	return true
}

func ipv4Cut(h *header) bool {
	return h.is(layers.LayerTypeIPv4, 20) && h.pad(int(h.data[0]&0xf)*4)
}

func ipv4Length(h *header) bool {
	if !h.is(layers.LayerTypeIPv4, 20) || int(binary.BigEndian.Uint16(h.data[2:])) == len(h.data) {
		return false
	}
	return h.set16(2, uint16(len(h.data)))
}

func ipv4Options(h *header) bool {
	if !h.is(layers.LayerTypeIPv4, 20) || h.data[0]&0xf <= 5 {
		return false
	}
	if new(layers.IPv4).DecodeFromBytes(h.data, gopacket.NilDecodeFeedback) == nil {
		return false
	}
	end := int(h.data[0]&0xf) * 4
	return h.set(20, slices.Repeat([]byte{1}, end-20)...) // no operation
}

func ipv4FirstFragment(h *header) bool {
	const moreFragments, offset = 0x2000, 0x1fff
	if !h.is(layers.LayerTypeIPv4, 20) {
		return false
	}
	field := binary.BigEndian.Uint16(h.data[6:])
	return field&moreFragments != 0 && field&offset == 0 && h.set16(6, field&^moreFragments)
}

func ipv4Authentication(h *header) bool {
	if h.layer != layers.LayerTypeIPSecAH || h.network != layers.LayerTypeIPv4 {
		return false
	}
	h.layer = gopacket.LayerTypeZero
	return true
}

// extension returns where an extension header begins, if there is one with its
// first 4 bytes: in the data, or behind the fixed IPv6 header, as gopacket
// takes hop-by-hop options for a part of it.
func (h *header) extension() (layer gopacket.LayerType, offset int, ok bool) {
	layer = h.layer
	if h.is(layers.LayerTypeIPv6, 40) && h.data[6] == hopByHop {
		layer, offset = layers.LayerTypeIPv6HopByHop, 40
	}
	return layer, offset, isExtension(layer) && len(h.data) >= offset+4
}

// extensionLength returns the length that the header says it has.
func (h *header) extensionLength(layer gopacket.LayerType, offset int) int {
	switch length := int(h.data[offset+1]); layer {
	case layers.LayerTypeIPv6Fragment:
		return 8
	case layers.LayerTypeIPSecAH:
		return (length + 2) * 4
	default:
		return (length + 1) * 8
	}
}

func extensionCut(h *header) bool {
	layer, offset, ok := h.extension()
	return ok && h.pad(offset+h.extensionLength(layer, offset))
}

// A length of 0 with nothing behind the header becomes one that gopacket finds
// too large, as it refuses 0 there.
func ipv6Length(h *header) bool {
	if !h.is(layers.LayerTypeIPv6, 40) {
		return false
	}
	length := uint16(max(len(h.data)-40, 1))
	return binary.BigEndian.Uint16(h.data[4:]) != length && h.set16(4, length)
}

func extensionOptions(h *header) bool {
	layer, offset, ok := h.extension()
	if !ok {
		return false
	}
	var err error
	switch h.layer {
	case layers.LayerTypeIPv6:
		err = new(layers.IPv6).DecodeFromBytes(h.data, gopacket.NilDecodeFeedback)
	case layers.LayerTypeIPv6HopByHop:
		err = new(layers.IPv6HopByHop).DecodeFromBytes(h.data, gopacket.NilDecodeFeedback)
	case layers.LayerTypeIPv6Destination:
		err = new(layers.IPv6Destination).DecodeFromBytes(h.data, gopacket.NilDecodeFeedback)
	}
	// Zeros are padding of one byte each.
	return err != nil && h.set(offset+2, make([]byte, h.extensionLength(layer, offset)-2)...)
}

func shortAuthentication(h *header) bool {
	if !h.is(layers.LayerTypeIPSecAH, 8) || h.data[1] != 0 {
		return false
	}
	h.data = slices.Insert(slices.Clone(h.data), 8, 0, 0, 0, 0)
	h.data[1] = 1
	return true
}

func ipv6FirstFragment(h *header) bool {
	const moreFragments, offset = 1, 0xfff8
	if !h.is(layers.LayerTypeIPv6Fragment, 4) {
		return false
	}
	field := binary.BigEndian.Uint16(h.data[2:])
	return field&moreFragments != 0 && field&offset == 0 && h.set16(2, field&^moreFragments)
}

// transportCut completes a header of which there is what the meter reads.
func transportCut(h *header) bool {
	switch {
	case h.is(layers.LayerTypeTCP, 4):
		return h.pad(20)
	case h.is(layers.LayerTypeUDP, 4):
		return h.pad(8)
	case h.is(layers.LayerTypeSCTP, 4):
		return h.pad(12)
	case h.is(layers.LayerTypeICMPv4, 2):
		return h.pad(8)
	case h.is(layers.LayerTypeICMPv6, 2):
		return h.pad(4)
	default:
		return false
	}
}

func tcpOffset(h *header) bool {
	if !h.is(layers.LayerTypeTCP, 20) {
		return false
	}
	err := new(layers.TCP).DecodeFromBytes(h.data, gopacket.NilDecodeFeedback)
	return err != nil && h.set(12, 5<<4)
}

func udpLength(h *header) bool {
	if !h.is(layers.LayerTypeUDP, 8) {
		return false
	}
	length := binary.BigEndian.Uint16(h.data[4:])
	return length != 0 && length < 8 && h.set16(4, 0)
}
