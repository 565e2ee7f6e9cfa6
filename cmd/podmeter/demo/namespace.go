// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace without a name: it ends with the last
// descriptor of it. Its methods may be used by several goroutines, close not.
type namespace struct {
	name   string // for messages
	handle netns.NsHandle
	links  *netlink.Handle
}

// newNamespace makes a network namespace with its loopback up.
func newNamespace(name string) (*namespace, error) {
	var handle netns.NsHandle
	err := onThread(func() error {
		var err error
		handle, err = netns.New()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make network namespace for %s: %w", name, err)
	}
	return openNamespace(name, handle)
}

// currentNamespace is the one that the process is in.
func currentNamespace(name string) (*namespace, error) {
	handle, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("open network namespace of %s: %w", name, err)
	}
	return openNamespace(name, handle)
}

// openNamespace takes the handle over, also on an error.
func openNamespace(name string, handle netns.NsHandle) (*namespace, error) {
	links, err := netlink.NewHandleAt(handle, unix.NETLINK_ROUTE)
	if err != nil {
		err = fmt.Errorf("open netlink socket in %s: %w", name, err)
		return nil, errors.Join(err, handle.Close())
	}
	n := &namespace{name: name, handle: handle, links: links}
	if err := n.up("lo"); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

// close gives the namespace up; it ends when no socket is left in it.
func (n *namespace) close() error {
	if !n.handle.IsOpen() {
		return nil
	}
	n.links.Close()
	if err := n.handle.Close(); err != nil {
		return fmt.Errorf("close network namespace of %s: %w", n.name, err)
	}
	return nil
}

// onThread runs f on a thread that ends with it, whatever it did to itself.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// do runs f on a thread inside the namespace. Sockets that it opens stay inside
// and may be used from anywhere; goroutines that it starts are outside.
func (n *namespace) do(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(n.handle); err != nil {
			return fmt.Errorf("enter network namespace of %s: %w", n.name, err)
		}
		return f()
	})
}

// dial connects from inside the namespace. The address must be a literal one.
func (n *namespace) dial(ctx context.Context, dialer *net.Dialer, network, address string) (c net.Conn, err error) {
	err = n.do(func() error {
		c, err = dialer.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// listen listens for TCP connections inside the namespace.
func (n *namespace) listen(ctx context.Context, address string) (l net.Listener, err error) {
	err = n.do(func() error {
		l, err = new(net.ListenConfig).Listen(ctx, "tcp", address)
		return err
	})
	return l, err
}

// listenPacket opens a UDP socket inside the namespace.
func (n *namespace) listenPacket(ctx context.Context, address string) (c net.PacketConn, err error) {
	err = n.do(func() error {
		c, err = new(net.ListenConfig).ListenPacket(ctx, "udp", address)
		return err
	})
	return c, err
}

// sysctl is a kernel parameter of a network namespace: its path below
// /proc/sys/net and its value.
type sysctl struct{ path, value string }

// speakIPv6 turns IPv6 on for a device.
func (n *namespace) speakIPv6(device string) error {
	return n.set([]sysctl{{"ipv6/conf/" + device + "/disable_ipv6", "0"}})
}

// set writes kernel parameters.
func (n *namespace) set(parameters []sysctl) error {
	return n.do(func() error {
		for _, p := range parameters {
			path := filepath.Join("/proc/sys/net", p.path)
			if err := os.WriteFile(path, []byte(p.value), 0o644); err != nil {
				return fmt.Errorf("set kernel parameter in %s: %w", n.name, err)
			}
		}
		return nil
	})
}
