// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// A verdict is what is made of a packet: the flow it belongs to, and how the
// walk over its headers ended.
type verdict struct {
	outcome MeterOutcome
	key     MeterFlowKey
}

// gaveUp is the outcome where gopacket refuses a packet of which the meter
// makes something.
const gaveUp = MeterOutcomeOUTCOMES

// Limits of parse.h.
const maxTags, maxExtensions = 3, 8

// reference reads packets with gopacket's decoders, which alone say where a
// header ends and what comes next, and writes what they found as the meter
// would. Where the two are known to differ, a difference edits the header
// before gopacket sees it; in all else they have to agree.
type reference struct {
	point       uint32 // that packets come from
	differences []difference
	used        uint64 // by index, those that edited a header of the last packet

	// Of the header that was decoded last.
	layers    []gopacket.Layer
	next      gopacket.Decoder
	truncated bool
	options   gopacket.DecodeOptions
}

// header is a place in a packet where gopacket finds a header.
type header struct {
	layer     gopacket.LayerType
	ethertype layers.EthernetType // that led here
	network   gopacket.LayerType  // that it is within, if any
	data      []byte              // from here to the packet's end
}

// These make it a gopacket.PacketBuilder that goes on to no next header by itself.

func (r *reference) SetTruncated()                                 { r.truncated = true }
func (r *reference) AddLayer(l gopacket.Layer)                     { r.layers = append(r.layers, l) }
func (r *reference) NextDecoder(next gopacket.Decoder) error       { r.next = next; return nil }
func (r *reference) SetLinkLayer(gopacket.LinkLayer)               {}
func (r *reference) SetNetworkLayer(gopacket.NetworkLayer)         {}
func (r *reference) SetTransportLayer(gopacket.TransportLayer)     {}
func (r *reference) SetApplicationLayer(gopacket.ApplicationLayer) {}
func (r *reference) SetErrorLayer(gopacket.ErrorLayer)             {}
func (r *reference) DumpPacketData()                               {}
func (r *reference) DecodeOptions() *gopacket.DecodeOptions        { return &r.options }

// parse returns what the meter should make of a packet.
func (r *reference) parse(packet []byte, direction uint8) verdict {
	v := verdict{key: MeterFlowKey{Point: r.point, Direction: direction}}
	r.used = 0
	v.outcome = r.link(&v.key, r.meet(header{layer: layers.LayerTypeEthernet, data: packet}))
	return v
}

// meet edits a header for the differences.
func (r *reference) meet(h header) header {
	for i, d := range r.differences {
		if d.edit(&h) {
			r.used |= 1 << i
		}
	}
	return h
}

// decode returns the first layer that gopacket makes of a header: one that is
// incomplete, or nil, together with an error.
func (r *reference) decode(h header) (gopacket.Layer, error) {
	r.layers, r.next, r.truncated = r.layers[:0], nil, false
	err := h.layer.Decode(h.data, r)
	if len(r.layers) == 0 {
		return nil, err
	}
	return r.layers[0], err
}

// behind returns the header behind the one that was decoded last.
func (r *reference) behind(h header) header {
	layer := r.layers[0]
	h.layer, h.data = gopacket.LayerTypeZero, layer.LayerPayload()
	switch next := r.next.(type) {
	case gopacket.LayerType:
		h.layer = next
	case interface{ LayerType() gopacket.LayerType }:
		h.layer = next.LayerType()
	}
	if fragment, ok := layer.(*layers.IPv6Fragment); ok {
		// The decoder takes what follows for a fragment's data always.
		h.layer = fragment.NextLayerType()
	}
	return r.meet(h)
}

func (r *reference) link(key *MeterFlowKey, h header) MeterOutcome {
	layer, err := r.decode(h)
	if err != nil {
		return MeterOutcomeOUTCOME_TRUNCATED_LINK
	}
	frame := layer.(*layers.Ethernet)
	key.Ethertype = swap16(uint16(frame.EthernetType))
	if frame.EthernetType == layers.EthernetTypeLLC {
		key.Ethertype = swap16(frame.Length)
	}
	h.ethertype = frame.EthernetType
	h = r.behind(h)
	for tags := 0; h.layer == layers.LayerTypeDot1Q; tags++ {
		if tags == maxTags {
			return MeterOutcomeOUTCOME_VLAN_LIMIT
		}
		layer, err := r.decode(h)
		if err != nil {
			return MeterOutcomeOUTCOME_TRUNCATED_VLAN
		}
		h.ethertype = layer.(*layers.Dot1Q).Type
		key.Ethertype = swap16(uint16(h.ethertype))
		h = r.behind(h)
	}
	return r.network(key, h)
}

func (r *reference) network(key *MeterFlowKey, h header) MeterOutcome {
	switch h.network = h.layer; h.layer {
	case layers.LayerTypeIPv4:
		return r.ipv4(key, h)
	case layers.LayerTypeIPv6:
		return r.ipv6(key, h)
	default:
		return MeterOutcomeOUTCOME_NOT_IP
	}
}

func (r *reference) ipv4(key *MeterFlowKey, h header) MeterOutcome {
	layer, err := r.decode(h)
	ip := layer.(*layers.IPv4)
	switch {
	case r.truncated && ip.IHL == 0:
		return MeterOutcomeOUTCOME_TRUNCATED_NETWORK
	case ip.IHL < 5, err == nil && ip.Version != 4:
		return MeterOutcomeOUTCOME_MALFORMED
	case err != nil:
		return gaveUp
	}
	copyAddress(&key.Source, ip.SrcIP)
	copyAddress(&key.Destination, ip.DstIP)
	key.Protocol = uint8(ip.Protocol)
	if ip.FragOffset != 0 {
		return MeterOutcomeOUTCOME_LATER_FRAGMENT
	}
	return r.chain(key, r.behind(h), 0)
}

// ipv6 reads hop-by-hop options behind the fixed header as well, which are part
// of the layer.
func (r *reference) ipv6(key *MeterFlowKey, h header) MeterOutcome {
	layer, err := r.decode(h)
	ip := layer.(*layers.IPv6)
	switch {
	case len(ip.SrcIP) == 0:
		return MeterOutcomeOUTCOME_TRUNCATED_NETWORK
	case ip.Version != 6:
		return MeterOutcomeOUTCOME_MALFORMED
	}
	copyAddress(&key.Source, ip.SrcIP)
	copyAddress(&key.Destination, ip.DstIP)
	key.Protocol = uint8(ip.NextHeader)
	extensions := 0
	if ip.NextHeader == layers.IPProtocolIPv6HopByHop {
		if ip.HopByHop == nil {
			return MeterOutcomeOUTCOME_TRUNCATED_EXTENSION
		}
		key.Protocol = uint8(ip.HopByHop.NextHeader)
		extensions++
	}
	if err != nil {
		return gaveUp
	}
	return r.chain(key, r.behind(h), extensions)
}

// copyAddress writes an IPv4 address mapped into an IPv6 one.
func copyAddress(to *[16]uint8, address net.IP) { copy(to[:], address.To16()) }

// chain walks the extension headers behind the first that were counted already.
func (r *reference) chain(key *MeterFlowKey, h header, extensions int) MeterOutcome {
	for ; isExtension(h.layer); extensions++ {
		if extensions == maxExtensions {
			return MeterOutcomeOUTCOME_EXTENSION_LIMIT
		}
		layer, err := r.decode(h)
		if err != nil {
			return MeterOutcomeOUTCOME_TRUNCATED_EXTENSION
		}
		key.Protocol = nextHeader(layer)
		if f, ok := layer.(*layers.IPv6Fragment); ok && f.FragmentOffset != 0 {
			return MeterOutcomeOUTCOME_LATER_FRAGMENT
		}
		h = r.behind(h)
	}
	return r.transport(key, h)
}

func isExtension(layer gopacket.LayerType) bool {
	return layers.LayerClassIPv6Extension.Contains(layer) || layer == layers.LayerTypeIPSecAH
}

func nextHeader(layer gopacket.Layer) uint8 {
	switch l := layer.(type) {
	case *layers.IPv6HopByHop:
		return uint8(l.NextHeader)
	case *layers.IPv6Routing:
		return uint8(l.NextHeader)
	case *layers.IPv6Fragment:
		return uint8(l.NextHeader)
	case *layers.IPv6Destination:
		return uint8(l.NextHeader)
	default:
		return uint8(layer.(*layers.IPSecAH).NextHeader)
	}
}

func (r *reference) transport(key *MeterFlowKey, h header) MeterOutcome {
	switch h.layer {
	case layers.LayerTypeTCP, layers.LayerTypeUDP, layers.LayerTypeSCTP,
		layers.LayerTypeICMPv4, layers.LayerTypeICMPv6:
	default:
		return MeterOutcomeOUTCOME_NO_PORTS
	}
	layer, err := r.decode(h)
	if err != nil {
		return MeterOutcomeOUTCOME_TRUNCATED_TRANSPORT
	}
	switch l := layer.(type) {
	case *layers.TCP:
		setPorts(key, uint16(l.SrcPort), uint16(l.DstPort))
	case *layers.UDP:
		setPorts(key, uint16(l.SrcPort), uint16(l.DstPort))
	case *layers.SCTP:
		setPorts(key, uint16(l.SrcPort), uint16(l.DstPort))
	case *layers.ICMPv4:
		setPorts(key, 0, uint16(l.TypeCode))
	case *layers.ICMPv6:
		setPorts(key, 0, uint16(l.TypeCode))
	}
	return MeterOutcomeOUTCOME_FULL
}

func setPorts(key *MeterFlowKey, source, destination uint16) {
	key.SourcePort, key.DestinationPort = swap16(source), swap16(destination)
}
