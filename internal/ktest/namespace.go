// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Namespace is a network namespace that lives as long as the test: it has no
// name, so nothing is left of it, not even when the test is killed.
type Namespace struct {
	handle netns.NsHandle
}

// NewNamespace makes a network namespace with its loopback up.
func NewNamespace(tb testing.TB) *Namespace {
	tb.Helper()
	Privileged(tb)
	ns := &Namespace{}
	done := make(chan error)
	go func() {
		// The thread has been in another namespace and ends with the goroutine.
		runtime.LockOSThread()
		var err error
		if ns.handle, err = netns.New(); err == nil {
			err = errors.Join(remember(), setUp("lo"))
		}
		done <- err
	}()
	if err := <-done; err != nil {
		tb.Fatalf("make network namespace: %v", err)
	}
	tb.Cleanup(func() { ns.handle.Close() })
	return ns
}

var errEnded = errors.New("what ran in the network namespace did not return")

// Do runs f on a thread inside the namespace and returns its error. What f
// starts on other goroutines is outside; sockets that it opens stay inside.
func (ns *Namespace) Do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(ns.handle); err != nil {
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		err := errEnded // by FailNow of a helper, say
		defer func() { done <- err }()
		err = f()
	}()
	return <-done
}

// FD is the namespace's file descriptor, for moving a link into it.
func (ns *Namespace) FD() int { return int(ns.handle) }

func setUp(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// Sysctl sets a network setting of the namespace, such as
// "net/ipv6/conf/all/disable_ipv6".
func (ns *Namespace) Sysctl(tb testing.TB, name, value string) {
	tb.Helper()
	err := ns.Do(func() error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0) })
	if err != nil {
		tb.Fatalf("set %s: %v", name, err)
	}
}

// Veth makes a pair: hostName in ns, podName in pod, both up. It returns the
// ifindex of the host's end.
func (ns *Namespace) Veth(tb testing.TB, hostName string, pod *Namespace, podName string) int {
	tb.Helper()
	return ns.VethAt(tb, 0, hostName, pod, podName)
}

// VethAt makes a pair like Veth, the host's end with the ifindex that is asked
// for; any if 0.
func (ns *Namespace) VethAt(tb testing.TB, index int, hostName string, pod *Namespace, podName string) int {
	tb.Helper()
	err := ns.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Index = hostName, index
		err := netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: attrs, PeerName: podName, PeerNamespace: netlink.NsFd(pod.FD()),
		})
		if err != nil {
			return err
		}
		l, err := netlink.LinkByName(hostName)
		if err != nil {
			return err
		}
		index = l.Attrs().Index
		return netlink.LinkSetUp(l)
	})
	if err == nil {
		err = pod.Do(func() error { return setUp(podName) })
	}
	if err != nil {
		tb.Fatalf("make veth %s: %v", hostName, err)
	}
	return index
}

// Address gives a device of the namespace an address with its prefix length.
func (ns *Namespace) Address(tb testing.TB, device, address string) {
	tb.Helper()
	err := ns.Do(func() error {
		l, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		addr.Flags |= 0x02 // IFA_F_NODAD: usable at once
		return netlink.AddrAdd(l, addr)
	})
	if err != nil {
		tb.Fatalf("add address %s to %s: %v", address, device, err)
	}
}

// VethWithin makes a pair whose ends both stay in the namespace.
func (ns *Namespace) VethWithin(tb testing.TB, name, peer string) {
	tb.Helper()
	err := ns.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer})
	})
	if err != nil {
		tb.Fatalf("make veth %s: %v", name, err)
	}
}

// DeleteLink deletes a device of the namespace.
func (ns *Namespace) DeleteLink(tb testing.TB, name string) {
	tb.Helper()
	err := ns.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	})
	if err != nil {
		tb.Fatalf("delete link %s: %v", name, err)
	}
}

// Close lets go of the namespace before the end of the test, for one that makes
// many. It may be called once, by a test that uses it no more.
func (ns *Namespace) Close() error { return ns.handle.Close() }
