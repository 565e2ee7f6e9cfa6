// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// answer is the kernel's to a request: the connection asked for, with its other side
// and when it began.
func answer(c flows.Connection, backend netip.AddrPort, since time.Time) []byte {
	b := appendRequest(nil, 7, c)
	other := appendRequest(nil, 7, flows.Connection{Protocol: c.Protocol, Client: backend, Service: c.Client})[netlinkHead:]
	binary.NativeEndian.PutUint16(other[2:], nl.CTA_TUPLE_REPLY|unix.NLA_F_NESTED)
	b = appendNested(append(b, other...), nl.CTA_TIMESTAMP, func(b []byte) []byte {
		return appendAttribute(b, nl.CTA_TIMESTAMP_START, binary.BigEndian.AppendUint64(nil, uint64(since.UnixNano())))
	})
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return b
}

// An answer that is cut off anywhere is refused, or one without what comes last.
func TestConntrackAnswerCutOff(t *testing.T) {
	c := flows.Connection{
		Protocol: flows.ProtocolTCP, Client: netip.MustParseAddrPort("10.1.1.2:1000"),
		Service: netip.MustParseAddrPort("10.96.0.10:80"),
	}
	backend, since := netip.MustParseAddrPort("10.1.2.2:8080"), time.Unix(1, 2)
	whole := answer(c, backend, since)
	got, ours, err := parseAnswer(whole, 7, c)
	if want := (flows.Backend{Address: backend, Since: since}); !ours || err != nil || got != want {
		t.Fatalf("whole: got %+v, ours %t, %v, want %+v", got, ours, err, want)
	}
	if _, ours, _ := parseAnswer(whole, 8, c); ours {
		t.Error("of another request: got it as ours")
	}
	for length := range whole {
		cut := append([]byte(nil), whole[:length]...)
		if _, _, err := parseAnswer(cut, 7, c); err == nil {
			t.Errorf("%d bytes: got no error", length)
		}
		if length < netlinkHead {
			continue
		}
		binary.NativeEndian.PutUint32(cut, uint32(length)) // as if that were all
		if got, _, err := parseAnswer(cut, 7, c); err == nil && got.Address != backend {
			t.Errorf("%d bytes, which it says: got %+v, want %v or an error", length, got, backend)
		}
	}
}
