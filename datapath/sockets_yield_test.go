// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sys/unix"
)

// refusals are what a foreign program can refuse, by how it is attached: an attempt in a
// cgroup that fails with EPERM then.
var refusals = map[ebpf.AttachType]func() error{
	ebpf.AttachCGroupInet4PostBind: func() error { return listenAndClose("tcp4", "127.0.0.1:0") },
	ebpf.AttachCGroupInet6PostBind: func() error { return listenAndClose("tcp6", "[::1]:0") },
	ebpf.AttachCGroupInet4Connect:  func() error { return dialAndClose("udp4", "127.0.0.1:9") },
	ebpf.AttachCGroupInet6Connect:  func() error { return dialAndClose("udp6", "[::1]:9") },
	ebpf.AttachCGroupUDP4Sendmsg:   func() error { return sendUnconnected("udp4", "127.0.0.1:9") },
	ebpf.AttachCGroupUDP6Sendmsg:   func() error { return sendUnconnected("udp6", "[::1]:9") },
}

func listenAndClose(network, address string) error {
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	return l.Close()
}

func dialAndClose(network, address string) error {
	c, err := net.Dial(network, address)
	if err != nil {
		return err
	}
	return c.Close()
}

func sendUnconnected(network, address string) error {
	to, err := net.ResolveUDPAddr(network, address)
	if err != nil {
		return err
	}
	c, err := net.ListenUDP(network, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.WriteTo([]byte("x"), to)
	return err
}

// wantRuns wants a foreign program to run in the cgroup of sockets, and what it refuses to
// be refused.
func (w *socketWorld) wantRuns(t *testing.T, foreign *ktest.ForeignProgram, when string) {
	t.Helper()
	if !foreign.Runs(t, w.cgroup) {
		t.Errorf("%s: the foreign program (%v) does not run, want it to", when, foreign.Attach)
	}
	attempt := refusals[foreign.Attach]
	if attempt == nil {
		return
	}
	if err := w.cgroup.Do(w.pod, attempt); !errors.Is(err, unix.EPERM) {
		t.Errorf("%s: what a foreign program (%v) refuses: got %v, want EPERM", when, foreign.Attach, err)
	}
}

// A foreign program of any kind that those of sockets would switch off runs within a look.
// Once it is gone, sockets are looked at again, and those that came in between are no more
// than unknown.
func TestSocketsBesideForeign(t *testing.T) {
	w := newSocketWorld(t)
	w.pod.Sysctl(t, "net/ipv6/conf/lo/disable_ipv6", "0")
	above := w.cgroup
	w.cgroup = above.Child(t, "below")
	s, end := w.open(SocketOptions{yieldPause: 1})
	defer end()
	for attach := range cgroupProgramTypes {
		if slices.Contains(hostTypes, attach) {
			continue
		}
		for name, flags := range map[string]uint32{"override": ktest.CgroupOverridable, "no flag": ktest.CgroupExclusive} {
			t.Run(fmt.Sprint(attach, ", ", name), func(t *testing.T) { w.besideForeign(t, s, above, attach, flags) })
		}
	}
}

// besideForeign is one foreign program's coming and going above the cgroup.
func (w *socketWorld) besideForeign(t *testing.T, s *Sockets, above *ktest.Cgroup, attach ebpf.AttachType, flags uint32) {
	l := w.listen(8080)
	if open, _ := w.ports(s); !slices.Equal(open, []uint16{8080}) {
		t.Errorf("without it: got %v, want 8080", open)
	}
	foreign := newForeignProgram(t, attach)
	remove := foreign.On(t, above, flags)
	w.look(s)
	w.wantRuns(t, foreign, "beside podmeter")
	if got := s.Foreign(); got == nil || got.Cgroup != above.Path {
		t.Errorf("got foreign program %v, want that of %s", got, above.Path)
	}
	l.Close()
	if open, closed := w.ports(s); len(open)+len(closed) != 0 {
		t.Errorf("beside it: got %v and %v, want no sockets", open, closed)
	}
	remove()
	w.look(s)
	if open, closed := w.ports(s); len(open)+len(closed) != 0 || s.Foreign() != nil {
		t.Errorf("without it again: got %v and %v, want none, as the socket was closed unseen", open, closed)
	}
	l = w.listen(8081)
	if open, _ := w.ports(s); !slices.Equal(open, []uint16{8081}) {
		t.Errorf("without it again: got %v, want 8081", open)
	}
	l.Close()
	if err := s.forgetAll(); err != nil {
		t.Fatal(err)
	}
	s.checkShares(t)
}

// look makes the next reading look for foreign programs, and reads.
func (w *socketWorld) look(s *Sockets) {
	w.Helper()
	s.looked = s.looked.Add(-foreignInterval)
	s.seen = s.seen.Add(-foreignInterval)
	w.ports(s)
}

// A program on the very cgroup is not shared with by the kernel: that is waited out, too.
// Links that an earlier agent left there, which a foreign one came above, are let go of.
func TestSocketsWaitForForeign(t *testing.T) {
	w := newSocketWorld(t)
	above := w.cgroup
	w.cgroup = above.Child(t, "below")
	same := newForeignProgram(t, ebpf.AttachCGroupInet4Connect)
	remove := same.On(t, w.cgroup, ktest.CgroupOverridable)
	s, end := w.open(SocketOptions{})
	w.wantRuns(t, same, "on the same cgroup")
	remove()
	w.look(s)
	if got := s.Foreign(); got == nil {
		t.Error("at once: got sockets that are looked at, want a pause")
	}
	end()
	_, end = w.open(SocketOptions{})
	end()
	later := newForeignProgram(t, ebpf.AttachCGroupInet4Connect)
	later.On(t, above, ktest.CgroupOverridable)
	if later.Runs(t, w.cgroup) {
		t.Fatal("the kernel runs both programs: there is nothing to be shown")
	}
	s, end = w.open(SocketOptions{})
	defer end()
	w.wantRuns(t, later, "came while no agent ran")
	if s.Foreign() == nil {
		t.Error("got sockets that are looked at, want none")
	}
}

// Programs on the root keep nobody below from attaching, with whichever flags, and run
// beside those.
func TestSocketsAboveForeign(t *testing.T) {
	w := newSocketWorld(t)
	s, end := w.open(SocketOptions{yieldPause: 1})
	defer end()
	for _, flags := range []uint32{ktest.CgroupExclusive, ktest.CgroupOverridable, ktest.CgroupShared} {
		below := w.cgroup.Child(t, fmt.Sprint("below", flags))
		foreign := newForeignProgram(t, ebpf.AttachCGroupInet4Connect)
		foreign.On(t, below, flags)
		var listener net.Listener
		err := below.Do(w.pod, func() (err error) {
			listener, err = net.Listen("tcp4", "127.0.0.1:0")
			return errors.Join(err, wantEPERM(dialAndClose("udp4", "127.0.0.1:9")))
		})
		if err != nil {
			t.Fatal(err)
		}
		w.look(s)
		if open, _ := w.ports(s); len(open) != 1 || s.Foreign() != nil {
			t.Errorf("flags %d: got sockets %v and foreign program %v, want one and none", flags, open, s.Foreign())
		}
		listener.Close()
	}
}

func wantEPERM(err error) error {
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	return fmt.Errorf("got %w, want EPERM", err)
}
