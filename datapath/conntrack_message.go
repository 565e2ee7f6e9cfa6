// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The messages are those of uapi/linux/netfilter/nfnetlink_conntrack.h. Attributes,
// which may hold others, have a length in their head that their padding to 4 bytes is
// not in. Heads are in the machine's order of bytes, what they hold in that of networks.
const (
	netlinkHead   = unix.SizeofNlMsghdr + nl.SizeofNfgenmsg
	attributeHead = unix.SizeofNlAttr
)

// errConntrackAnswer is of an answer that is not as the kernel's are.
var errConntrackAnswer = errors.New("the kernel's answer cannot be read")

// appendRequest appends the request for a connection by what its client sends.
func appendRequest(b []byte, sequence uint32, c flows.Connection) []byte {
	native := binary.NativeEndian
	begin := len(b)
	b = native.AppendUint32(b, 0) // the length, known at the end
	b = native.AppendUint16(b, nl.IPCTNL_MSG_CT_GET|unix.NFNL_SUBSYS_CTNETLINK<<8)
	b = native.AppendUint16(b, unix.NLM_F_REQUEST)
	b = native.AppendUint32(b, sequence)
	b = native.AppendUint32(b, 0) // our port, which the kernel knows
	family, source, destination := uint8(unix.AF_INET), uint16(nl.CTA_IP_V4_SRC), uint16(nl.CTA_IP_V4_DST)
	if c.Client.Addr().Is6() {
		family, source, destination = unix.AF_INET6, nl.CTA_IP_V6_SRC, nl.CTA_IP_V6_DST
	}
	b = append(b, family, nl.NFNETLINK_V0, 0, 0)
	b = appendNested(b, nl.CTA_TUPLE_ORIG, func(b []byte) []byte {
		b = appendNested(b, nl.CTA_TUPLE_IP, func(b []byte) []byte {
			b = appendAttribute(b, source, c.Client.Addr().AsSlice())
			return appendAttribute(b, destination, c.Service.Addr().AsSlice())
		})
		return appendNested(b, nl.CTA_TUPLE_PROTO, func(b []byte) []byte {
			b = appendAttribute(b, nl.CTA_PROTO_NUM, []byte{c.Protocol})
			b = appendAttribute(b, nl.CTA_PROTO_SRC_PORT, binary.BigEndian.AppendUint16(nil, c.Client.Port()))
			return appendAttribute(b, nl.CTA_PROTO_DST_PORT, binary.BigEndian.AppendUint16(nil, c.Service.Port()))
		})
	})
	native.PutUint32(b[begin:], uint32(len(b)-begin))
	return b
}

func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attributeHead+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, padding(len(value)))...)
}

// appendNested appends an attribute that holds those that fill appends.
func appendNested(b []byte, kind uint16, fill func([]byte) []byte) []byte {
	begin := len(b)
	b = fill(appendAttribute(b, kind|unix.NLA_F_NESTED, nil))
	binary.NativeEndian.PutUint16(b[begin:], uint16(len(b)-begin))
	return b
}

func padding(length int) int { return -length & (unix.NLA_ALIGNTO - 1) }

// parseAnswer reads what the kernel answers to a request. ours is false for the late
// answer to an earlier one.
func parseAnswer(b []byte, sequence uint32, c flows.Connection) (backend flows.Backend, ours bool, err error) {
	native := binary.NativeEndian
	if len(b) < netlinkHead || native.Uint32(b) > uint32(len(b)) || native.Uint32(b) < netlinkHead {
		return backend, true, errConntrackAnswer
	}
	if native.Uint32(b[8:]) != sequence {
		return backend, false, nil
	}
	b = b[:native.Uint32(b)]
	if native.Uint16(b[4:]) == unix.NLMSG_ERROR {
		return backend, true, refusal(int32(native.Uint32(b[unix.SizeofNlMsghdr:])))
	}
	backend, err = parseConnection(b[netlinkHead:], c)
	return backend, true, err
}

func refusal(code int32) error {
	if code >= 0 {
		return errConntrackAnswer // no error, and no connection
	}
	return unix.Errno(-code)
}

// parseConnection reads the attributes of a connection. What its backend answers comes
// from the backend's address. The kernel finds a connection by either of its sides;
// one of which the other side is as we asked is none of ours.
func parseConnection(b []byte, asked flows.Connection) (backend flows.Backend, err error) {
	var original, reply tuple
	ok := eachAttribute(b, func(kind uint16, value []byte) bool {
		switch kind {
		case nl.CTA_TUPLE_ORIG:
			return original.parse(value)
		case nl.CTA_TUPLE_REPLY:
			return reply.parse(value)
		case nl.CTA_TIMESTAMP:
			return eachAttribute(value, func(kind uint16, value []byte) bool {
				if kind == nl.CTA_TIMESTAMP_START && len(value) >= 8 {
					backend.Since = time.Unix(0, int64(binary.BigEndian.Uint64(value)))
				}
				return true
			})
		}
		return true
	})
	switch {
	case !ok || !reply.source.IsValid():
		return backend, errConntrackAnswer
	case original != tuple{asked.Client, asked.Service}:
		return backend, unix.ENOENT
	}
	backend.Address = reply.source
	return backend, nil
}

// tuple is one side of a connection, without its protocol.
type tuple struct{ source, destination netip.AddrPort }

func (t *tuple) parse(b []byte) bool {
	var source, destination netip.Addr
	var ports [2]uint16
	ok := eachAttribute(b, func(part uint16, value []byte) bool {
		switch part {
		case nl.CTA_TUPLE_IP:
			return eachAttribute(value, func(kind uint16, value []byte) bool {
				if kind == nl.CTA_IP_V4_SRC || kind == nl.CTA_IP_V6_SRC {
					source, _ = netip.AddrFromSlice(value)
				} else {
					destination, _ = netip.AddrFromSlice(value)
				}
				return true
			})
		case nl.CTA_TUPLE_PROTO:
			return eachAttribute(value, func(kind uint16, value []byte) bool {
				if (kind == nl.CTA_PROTO_SRC_PORT || kind == nl.CTA_PROTO_DST_PORT) && len(value) == 2 {
					ports[kind-nl.CTA_PROTO_SRC_PORT] = binary.BigEndian.Uint16(value)
				}
				return true
			})
		}
		return true
	})
	t.source, t.destination = netip.AddrPortFrom(source, ports[0]), netip.AddrPortFrom(destination, ports[1])
	return ok && source.IsValid() && destination.IsValid()
}

// eachAttribute calls f with all attributes until it returns false. It returns whether
// all could be read and f returned true.
func eachAttribute(b []byte, f func(kind uint16, value []byte) bool) bool {
	for len(b) > 0 {
		if len(b) < attributeHead {
			return false
		}
		length, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if length < attributeHead || length > len(b) {
			return false
		}
		if !f(kind&nl.NLA_TYPE_MASK, b[attributeHead:length]) {
			return false
		}
		b = b[min(length+padding(length), len(b)):]
	}
	return true
}
