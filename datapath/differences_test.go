// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"testing"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sys/unix"
)

const (
	ethernetHeader = 14
	vlanTag        = 4
	// tcpHeaders is what each segment of a large TCP packet repeats: Ethernet,
	// IPv4, and TCP with timestamps.
	tcpHeaders = ethernetHeader + 20 + 32
	bulk       = 8 << 20 // bytes of a TCP transfer
)

// apart is what an interface counts beyond podmeter, below 0 where it counts less.
type apart [flows.Directions]struct{ bytes, packets int64 }

func apartBy(ledger, ours byDirection) (a apart) {
	for d := range a {
		a[d].bytes = int64(ledger[d].Bytes - ours[d].Bytes)
		a[d].packets = int64(ledger[d].Packets - ours[d].Packets)
	}
	return a
}

func (a apart) packets() (p [flows.Directions]int64) {
	for d := range a {
		p[d] = a[d].packets
	}
	return p
}

// scene is a wire after a row's traffic. Podmeter and the interface's own count
// are compared; what sent and dropped say comes from neither.
type scene struct {
	*wire
	ours byDirection
	// sent is what TC saw where it was sent, before it was cut to segments.
	sent [flows.Directions]passed
	// dropped is what the device or its qdisc counts as dropped on the way to the
	// pod.
	dropped uint64
}

// large reports whether large TCP packets went both ways.
func (s *scene) large() bool {
	for _, sent := range s.sent {
		if sent.segments <= 2*sent.packets {
			return false
		}
	}
	return true
}

// A row is a case in which the ledger may differ from podmeter, by what is
// predicted from how the kernel treats it.
type row struct {
	name    string
	prepare func(*testing.T, *wire) (lacks string) // why this kernel cannot show it, or empty
	traffic func(*testing.T, *wire)
	predict func(*scene) apart
	state   State
	equal   bool // no difference at all is predicted
	large   bool // packets larger than the MTU must have passed both ways
}

func rows() []row {
	all := offloadRows()
	all = append(all, xdpRows()...)
	all = append(all, pathRows()...)
	return append(all, redirectRows()...)
}

// cutAfterUs is the difference where large packets are cut to segments between
// podmeter and the interface's count: each further one has headers of its own.
func cutAfterUs(segments, packets uint64) (bytes, further int64) {
	further = int64(segments - packets)
	return tcpHeaders * further, further
}

func unprepared(*testing.T, *wire) string { return "" }

func equal(*scene) apart { return apart{} }

// offloads sets those of both ends.
func offloads(hostTSO, podTSO, hostGRO, podGRO bool) func(*testing.T, *wire) string {
	return func(t *testing.T, w *wire) string {
		w.host.Offload(t, "veth0", unix.ETHTOOL_STSO, hostTSO)
		w.host.Offload(t, "veth0", unix.ETHTOOL_SGRO, hostGRO)
		w.pod.Offload(t, "eth0", unix.ETHTOOL_STSO, podTSO)
		w.pod.Offload(t, "eth0", unix.ETHTOOL_SGRO, podGRO)
		return ""
	}
}

func offloadRows() []row {
	return []row{
		{name: "defaults, TCP to and from the pod and UDP", prepare: unprepared, predict: equal,
			state: StateAttached, equal: true, large: true,
			traffic: func(t *testing.T, w *wire) {
				sendTCP(t, w.pod, w.host, "198.51.100.1")
				sendTCP(t, w.host, w.pod, "198.51.100.2")
				w.pod.Send(t, "198.51.100.1:9", 100, 200)
				w.host.Send(t, "198.51.100.2:9", 100, 200)
			}},
		{name: "TSO off on the host's end", prepare: offloads(false, true, false, false), state: StateDiffers,
			traffic: func(t *testing.T, w *wire) { sendTCP(t, w.host, w.pod, "198.51.100.2") },
			predict: func(s *scene) (a apart) {
				sent := s.sent[flows.Receive]
				a[flows.Receive].bytes, a[flows.Receive].packets = cutAfterUs(sent.segments, sent.packets)
				return a
			}},
		{name: "TSO off on the pod's end", prepare: offloads(true, false, false, false), predict: equal, state: StateAttached, equal: true,
			traffic: func(t *testing.T, w *wire) { sendTCP(t, w.pod, w.host, "198.51.100.1") }},
		{name: "GRO on on the pod's end", predict: equal, state: StateAttached, equal: true,
			prepare: offloads(true, true, false, true),
			traffic: func(t *testing.T, w *wire) { sendTCP(t, w.host, w.pod, "198.51.100.2") }},
		{name: "TSO off on the pod's end, GRO on on the host's", state: StateDiffers,
			prepare: offloads(true, false, true, false),
			traffic: func(t *testing.T, w *wire) { sendTCP(t, w.pod, w.host, "198.51.100.1") },
			predict: countedByNAPI(flows.Transmit)},
	}
}

// countedByNAPI is the difference where the receiving end of the veth has NAPI:
// it counts each segment, before GRO, and without the Ethernet header.
func countedByNAPI(d flows.Direction) func(*scene) apart {
	return func(s *scene) (a apart) {
		segments := s.sent[d].segments
		a[d].bytes, a[d].packets = cutAfterUs(segments, s.ours[d].Packets)
		a[d].bytes -= ethernetHeader * int64(segments)
		return a
	}
}

// Where the ledger differs: in each case by exactly what is predicted, and the
// interface's status tells it.
func TestWhereTheLedgerDiffers(t *testing.T) {
	t.Parallel()
	for _, r := range rows() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel() // each waits for two readings of the ledger
			w := newWire(t)
			if lacks := r.prepare(t, w); lacks != "" {
				t.Skip(lacks)
			}
			r.check(t, w)
		})
	}
}

func (r *row) check(t *testing.T, w *wire) {
	watch := w.watch(t)
	m := startMeter(t, w.host, nil)
	m.awaitState(t, "veth0", StateAttached)
	unpublished, dropped := before(m, "veth0"), w.dropped(t)
	r.traffic(t, w)
	w.settled(t)
	s := &scene{wire: w, ours: metered(t, m.drainer, w.index), sent: watch(), dropped: w.dropped(t) - dropped}
	want := r.predict(s)
	if (want == apart{}) != r.equal || r.large && !s.large() {
		t.Fatalf("the traffic does not show the case: predicted %+v of %+v", want, s.sent)
	}
	ktest.Await(t, fmt.Sprintf("a difference of %v packets and the state %q", want.packets(), r.state), func() bool {
		i := m.Interfaces()[0]
		return i.Difference == want.packets() && i.State == r.state
	})
	ledger := w.ended(t).sub(unpublished)
	m.stop()
	ours, _ := m.book.of("veth0")
	if got := apartBy(ledger, ours); got != want {
		t.Errorf("interface beyond podmeter: got %+v, want %+v (interface %+v, podmeter %+v)", got, want, ledger, ours)
	}
	if m.book.failed != 0 || m.book.residue != 0 {
		t.Errorf("got a conservation error of %d and residue of %d bytes, want none", m.book.failed, m.book.residue)
	}
	t.Logf("%s: interface %+v, podmeter %+v", r.name, ledger, ours)
}
