// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sys/unix"
)

// cgroupProgramTypes are the types of programs by how they are attached.
var cgroupProgramTypes = map[ebpf.AttachType]ebpf.ProgramType{
	ebpf.AttachCGroupInetEgress: ebpf.CGroupSKB, ebpf.AttachCGroupInetIngress: ebpf.CGroupSKB,
	ebpf.AttachCGroupSockOps:       ebpf.SockOps,
	ebpf.AttachCGroupInet4PostBind: ebpf.CGroupSock, ebpf.AttachCGroupInet6PostBind: ebpf.CGroupSock,
	ebpf.AttachCgroupInetSockRelease: ebpf.CGroupSock,
	ebpf.AttachCGroupInet4Connect:    ebpf.CGroupSockAddr, ebpf.AttachCGroupInet6Connect: ebpf.CGroupSockAddr,
	ebpf.AttachCGroupUDP4Sendmsg: ebpf.CGroupSockAddr, ebpf.AttachCGroupUDP6Sendmsg: ebpf.CGroupSockAddr,
}

func newForeignProgram(t *testing.T, attach ebpf.AttachType) *ktest.ForeignProgram {
	t.Helper()
	return ktest.NewForeignProgram(t, cgroupProgramTypes[attach], attach)
}

// send sends a datagram from the cgroup to the node itself.
func (w *hostWorld) send() error {
	return w.cgroup.Do(w.host, func() error {
		client, err := net.Dial("udp4", "127.0.0.1:9")
		if err != nil {
			return err
		}
		defer client.Close()
		_, err = client.Write(make([]byte, 100))
		return err
	})
}

// wantDropped sends a datagram, which the foreign program has to refuse.
func (w *hostWorld) wantDropped(t *testing.T, when string) {
	t.Helper()
	if err := w.send(); !errors.Is(err, unix.EPERM) {
		t.Errorf("%s: a datagram that a foreign program drops: got %v, want EPERM", when, err)
	}
}

// A look finds a program that one below it would switch off, by the flags of the cgroup
// that has it, and no other.
func TestForeignLook(t *testing.T) {
	above := ktest.NewCgroup(t)
	parent := above.Child(t, "parent")
	pod := parent.Child(t, "pod")
	below := pod.Child(t, "container")
	cgroups := map[string]*ktest.Cgroup{"two above": above, "above": parent, "itself": pod, "below": below}
	for _, test := range []struct {
		name, where string
		flags       uint32
		programs    int
		attach      ebpf.AttachType
		found       bool
	}{
		{"override, two above", "two above", ktest.CgroupOverridable, 1, ebpf.AttachCGroupInetEgress, true},
		{"override, above", "above", ktest.CgroupOverridable, 1, ebpf.AttachCGroupInetIngress, true},
		{"override, the same", "itself", ktest.CgroupOverridable, 1, ebpf.AttachCGroupInetEgress, true},
		{"no flag, two above", "two above", ktest.CgroupExclusive, 1, ebpf.AttachCGroupInetIngress, true},
		{"no flag, the same", "itself", ktest.CgroupExclusive, 1, ebpf.AttachCGroupInetEgress, true},
		{"multi", "above", ktest.CgroupShared, 1, ebpf.AttachCGroupInetEgress, false},
		{"several multi", "above", ktest.CgroupShared, 3, ebpf.AttachCGroupInetEgress, false},
		{"override, below", "below", ktest.CgroupOverridable, 1, ebpf.AttachCGroupInetEgress, false},
		{"override, another kind", "above", ktest.CgroupOverridable, 1, ebpf.AttachCGroupInet4Connect, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			at := cgroups[test.where]
			var want *ForeignProgram
			for range test.programs {
				foreign := newForeignProgram(t, test.attach)
				defer foreign.On(t, at, test.flags)()
				if test.found {
					want = &ForeignProgram{Cgroup: at.Path, Type: test.attach, ID: foreign.ID}
				}
			}
			got, err := newForeignLook(hostTypes...).find(pod.Path)
			if err != nil {
				t.Fatal(err)
			}
			if (got == nil) != (want == nil) || got != nil && *got != *want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// What a foreign program above a pod in the node's network, or on its cgroup, drops stays
// dropped: podmeter does not attach, says so, and attaches once the program has gone. So it
// is with one that comes later above it, of which the kernel says nothing: podmeter leaves,
// and what it has counted is published.
func TestHostPodBesideForeign(t *testing.T) {
	w := newHostWorldWith(t, func(o *Options) { o.yieldPause = 1 })
	sent := 0
	for _, test := range []struct {
		name  string
		at    *ktest.Cgroup
		flags uint32
		later bool
	}{
		{"override above", w.above, ktest.CgroupOverridable, false},
		{"no flag above", w.above, ktest.CgroupExclusive, false},
		{"override on it", w.cgroup, ktest.CgroupOverridable, false},
		{"no flag on it", w.cgroup, ktest.CgroupExclusive, false},
		{"override above, later", w.above, ktest.CgroupOverridable, true},
		{"no flag above, later", w.above, ktest.CgroupExclusive, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.later {
				w.meterPod(t)
				w.exchange(t, "127.0.0.1", 10, 100)
				sent += 10
			}
			foreign := newForeignProgram(t, ebpf.AttachCGroupInetEgress)
			remove := foreign.On(t, test.at, test.flags)
			w.meterPod(t)
			w.wantDropped(t, "with podmeter")
			ktest.Await(t, "no metered pod", func() bool { return len(w.HostPods()) == 0 })
			yields := w.Yields()
			if len(yields) != 1 || yields[0].UID != hostPodUID || yields[0].Foreign.Cgroup != test.at.Path {
				t.Errorf("got yields %+v, want the pod's, to a program on %s", yields, test.at.Path)
			}
			remove()
			w.meterPod(t)
			w.exchange(t, "127.0.0.1", 10, 100)
			sent += 10
			w.want(t, datagramsOf(sent, 100, 28), datagramsOf(sent/5, 100, 28))
			if err := w.MeterHostPods(nil); err != nil {
				t.Fatal(err)
			}
			if got := w.Yields(); len(got) != 0 {
				t.Errorf("without the foreign program: got yields %+v, want none", got)
			}
		})
	}
}

// Programs that share a cgroup with others by the kernel's rules are no reason to leave it.
func TestHostPodBesideMulti(t *testing.T) {
	w := newHostWorld(t)
	foreign := newForeignProgram(t, ebpf.AttachCGroupInetEgress)
	foreign.On(t, w.above, ktest.CgroupShared)
	w.meterPod(t)
	w.wantDropped(t, "with podmeter")
	if got := w.HostPods(); len(got) != 1 {
		t.Errorf("got %+v, want one metered pod", got)
	}
}

// What is to be received is dropped as well.
func TestHostPodBesideForeignIngress(t *testing.T) {
	w := newHostWorld(t)
	newForeignProgram(t, ebpf.AttachCGroupInetIngress).On(t, w.above, ktest.CgroupOverridable)
	w.meterPod(t)
	var server net.PacketConn
	err := w.cgroup.Do(w.host, func() (err error) {
		server, err = net.ListenPacket("udp4", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	// A socket outside of the cgroup shows that the packets before it have come.
	if err := w.host.Do(func() error { return sendBehind(server.LocalAddr()) }); err != nil {
		t.Fatal(err)
	}
	if got := waitingBytes(t, server); got != 0 {
		t.Errorf("got a datagram of %d bytes that a foreign program drops, want none", got)
	}
}

// sendBehind sends a datagram to an address and one to a socket of its own, which it awaits.
func sendBehind(to net.Addr) error {
	own, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer own.Close()
	_, first := own.WriteTo(make([]byte, 100), to)
	_, second := own.WriteTo(make([]byte, 100), own.LocalAddr())
	_, _, third := own.ReadFrom(make([]byte, 100))
	return errors.Join(first, second, third)
}

// waitingBytes is the size of the next datagram that waits at a socket, 0 if none does.
func waitingBytes(t *testing.T, c net.PacketConn) (n int) {
	t.Helper()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) { n, _, _ = unix.Recvfrom(int(fd), make([]byte, 1500), unix.MSG_DONTWAIT) })
	if err != nil {
		t.Fatal(err)
	}
	return max(n, 0)
}

// A foreign program that is replaced is away for a moment, in which podmeter does not
// attach.
func TestHostPodWaitsAfterForeign(t *testing.T) {
	w := newHostWorld(t)
	remove := newForeignProgram(t, ebpf.AttachCGroupInetEgress).On(t, w.above, ktest.CgroupOverridable)
	w.meterPod(t)
	remove()
	w.meterPod(t)
	if pods, yields := w.HostPods(), w.Yields(); len(pods) != 0 || len(yields) != 1 {
		t.Errorf("at once: got %+v metered and %+v yielded, want the pod yielded", pods, yields)
	}
	if err := w.MeterHostPods(nil); err != nil {
		t.Fatal(err)
	}
	if got := w.Yields(); len(got) != 0 {
		t.Errorf("without the pod: got yields %+v, want none", got)
	}
}

// Programs that an agent left, and that switch off a foreign one which came while none ran,
// end as the next one adopts them, or with an uninstallation.
func TestAdoptedHostPodLeavesForForeign(t *testing.T) {
	var root string
	for _, test := range []struct {
		name string
		end  func(*testing.T, *hostWorld)
	}{
		{"adopted", func(t *testing.T, w *hostWorld) { w.start(t) }},
		{"adopted, without a known path", func(t *testing.T, w *hostWorld) {
			root = ""
			w.start(t)
			w.meterPod(t)
		}},
		{"uninstalled", func(t *testing.T, w *hostWorld) {
			if err := w.host.Do(func() error { _, err := Uninstall(w.options.PinPath); return err }); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newHostWorldWith(t, func(o *Options) { o.Cgroups = root })
			root = w.above.Path
			w.meterPod(t)
			w.exchange(t, "127.0.0.1", 10, 100)
			w.stop()
			w.want(t, datagramsOf(10, 100, 28), datagramsOf(2, 100, 28))
			newForeignProgram(t, ebpf.AttachCGroupInetEgress).On(t, w.above, ktest.CgroupOverridable)
			test.end(t, w)
			if test.name == "uninstalled" { // pins alone were removed, which the kernel takes its time for
				ktest.Await(t, "the end of the links", func() bool { return errors.Is(w.send(), unix.EPERM) })
			}
			w.wantDropped(t, test.name)
			if test.name != "uninstalled" {
				ktest.Await(t, "the end of the point", func() bool { return len(w.HostPods()) == 0 })
			}
		})
	}
}

// BenchmarkForeignLook is a look at the cgroups of 110 pods, as the agent takes one a second.
func BenchmarkForeignLook(b *testing.B) {
	above := ktest.NewCgroup(b)
	var pods []string
	for n := range 110 {
		pods = append(pods, above.Child(b, fmt.Sprint("pod", n)).Path)
	}
	for b.Loop() {
		look := newForeignLook(hostTypes...)
		for _, pod := range pods {
			if found, err := look.find(pod); found != nil || err != nil {
				b.Fatal(found, err)
			}
		}
	}
}
