// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"time"

	"github.com/podmeter/podmeter/flows"
	"golang.org/x/sys/unix"
)

// conntrackWait is how long an answer is waited for, which the kernel gives before
// it returns from the request.
const conntrackWait = 100 * time.Millisecond

// Conntrack asks the kernel's table of connections (conntrack) of a network
// namespace, that of the thread that asks first, for one connection at a time: the
// table itself, which may have millions of them, is never read. Only the zone 0 is
// asked. It needs CAP_NET_ADMIN and the kernel's nf_conntrack_netlink, which is
// loaded if it is a module.
//
// The zero Conntrack is ready to be used, by one goroutine. It opens a socket when it
// needs one, and closes it when something fails; Close closes it for good.
type Conntrack struct {
	socket   int // 0 is none
	sequence uint32
	request  []byte
	answer   [4096]byte
}

// Backend implements [flows.Translator].
func (c *Conntrack) Backend(connection flows.Connection) (flows.Backend, bool, error) {
	backend, err := c.ask(connection)
	switch {
	case err == nil:
		return backend, true, nil
	case errors.Is(err, unix.ENOENT):
		return backend, false, nil
	}
	return backend, false, fmt.Errorf("look up connection: %w", errors.Join(err, c.Close()))
}

// ask returns ENOENT for a connection that the kernel does not know.
func (c *Conntrack) ask(connection flows.Connection) (b flows.Backend, err error) {
	if err := c.open(); err != nil {
		return b, err
	}
	c.sequence++
	c.request = appendRequest(c.request[:0], c.sequence, connection)
	if err := unix.Sendto(c.socket, c.request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return b, err
	}
	for {
		n, _, err := unix.Recvfrom(c.socket, c.answer[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return b, err
		}
		if b, ours, err := parseAnswer(c.answer[:n], c.sequence, connection); ours {
			return b, err
		}
	}
}

func (c *Conntrack) open() error {
	if c.socket != 0 {
		return nil
	}
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open netfilter socket: %w", err)
	}
	c.socket = socket
	wait := unix.NsecToTimeval(conntrackWait.Nanoseconds())
	return unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)
}

// Close closes the socket. It may be called more than once.
func (c *Conntrack) Close() error {
	if c.socket == 0 {
		return nil
	}
	socket := c.socket
	c.socket = 0
	return unix.Close(socket)
}
