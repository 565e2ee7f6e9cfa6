// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// churn is a crowd of veths and what of their traffic has to be published.
type churn struct {
	meter      *testMeter
	host, away *ktest.Namespace

	mu     sync.Mutex
	living []vethLife
	// exact are the counters of those that the meter had the time to know, by
	// number; atMost of the others.
	exact, atMost map[int]byDirection
	ops           [churnOps]int
}

// vethLife is one veth of the crowd.
type vethLife struct {
	number, index int
	pod           *ktest.Namespace
}

func (v *vethLife) name() string    { return fmt.Sprint("c", v.number) }
func (v *vethLife) renamed() string { return fmt.Sprint("r", v.number) }

// What can happen to a veth.
const (
	churnStays = iota
	churnRenames
	churnMoves
	churnGoesAtOnce
	churnGoesWithItsNamespace
	churnOps
)

// live takes one veth through its life. Its index is the one that it shall have if
// it is free, and then the one that it had.
func (c *churn) live(v *vethLife) error {
	if err := c.create(v); err != nil {
		return err
	}
	op := rand.IntN(churnGoesWithItsNamespace)
	c.mu.Lock()
	c.ops[op]++
	c.mu.Unlock()
	if op == churnGoesAtOnce {
		return c.end(v, c.atMost)
	}
	if err := c.grow(v, op); err != nil {
		return err
	}
	if v.number%10 > 0 {
		return c.end(v, c.exact)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.living = append(c.living, *v)
	v.index = 0 // is taken
	return nil
}

// grow changes a veth and sends through it, until the meter knows all of it.
func (c *churn) grow(v *vethLife, op int) error {
	if err := errors.Join(c.change(v, op), c.awaitAttached(v), c.traffic(v)); err != nil {
		return err
	}
	if op != churnMoves {
		return nil
	}
	// It may just be let go of, as it was away.
	drains := c.meter.LastDrain().Count
	err := ktest.Eventually(ktest.Patience, "drains", func() bool { return c.meter.LastDrain().Count > drains+sets })
	return errors.Join(err, c.awaitAttached(v))
}

func (c *churn) create(v *vethLife) error {
	peer := fmt.Sprint("e", v.number)
	err := c.host.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Index = v.name(), v.index
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: peer, PeerNamespace: netlink.NsFd(v.pod.FD())}
		err := netlink.LinkAdd(veth)
		if err == unix.EBUSY || err == unix.EEXIST { // another has the index already
			veth.Index = 0
			err = netlink.LinkAdd(veth)
		}
		if err != nil {
			return fmt.Errorf("create: %w", err)
		}
		l, err := netlink.LinkByName(v.name())
		if err != nil {
			return err
		}
		v.index = l.Attrs().Index
		return netlink.LinkSetUp(l)
	})
	if err != nil {
		return err
	}
	err = v.pod.Do(func() error {
		l, err := netlink.LinkByName(peer)
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
	if err != nil {
		return err
	}
	return c.traffic(v)
}

// change renames a veth or moves it away and back.
func (c *churn) change(v *vethLife, op int) (err error) {
	switch op {
	case churnRenames:
		return renameLink(c.host, v.index, v.renamed())
	case churnMoves:
		if _, err = moveLink(c.host, c.away, v.name()); err == nil {
			v.index, err = moveLink(c.away, c.host, v.name())
		}
	}
	return err
}

// traffic sends some frames in both directions.
func (c *churn) traffic(v *vethLife) error {
	peer := fmt.Sprint("e", v.number)
	if err := sendFrames(v.pod, func() (netlink.Link, error) { return netlink.LinkByName(peer) }); err != nil {
		return err
	}
	return sendFrames(c.host, func() (netlink.Link, error) { return netlink.LinkByIndex(v.index) })
}

func sendFrames(from *ktest.Namespace, find func() (netlink.Link, error)) error {
	return from.Do(func() error {
		l, err := find()
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		frame := ktest.Packet(ktest.Ethernet(unix.ETH_P_IP), ipPacket())
		for range 1 + rand.IntN(20) {
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index}); err != nil {
				return fmt.Errorf("send a frame: %w", err)
			}
		}
		return nil
	})
}

// awaitAttached waits until nothing of the veth's past is unknown. With netlink the filters
// have to be there as well: they do not move with a device, which may not be known yet.
func (c *churn) awaitAttached(v *vethLife) error {
	var last InterfaceStatus
	err := ktest.Eventually(ktest.Patience, "attached", func() bool {
		for _, last = range c.meter.Interfaces() {
			if int(last.Point) == v.index && (last.Name == v.name() || last.Name == v.renamed()) {
				return last.State == StateAttached && (c.meter.options.Attach != AttachNetlink || c.filters(v) == 2)
			}
		}
		last = InterfaceStatus{}
		return false
	})
	if err != nil {
		return fmt.Errorf("%w: ifindex %d, %+v", err, v.index, last)
	}
	return nil
}

// filters is how many of ours are on a veth.
func (c *churn) filters(v *vethLife) (n int) {
	_ = c.host.Do(func() error { // which has no error of its own
		n = len(ourFilters(device(v.index), c.meter.attacher.handle))
		return nil
	})
	return n
}

// end notes the last counters of a veth and deletes it.
func (c *churn) end(v *vethLife, expected map[int]byDirection) error {
	counters, err := c.lastCounters(v)
	if err != nil {
		return err
	}
	c.mu.Lock()
	expected[v.number] = counters
	c.mu.Unlock()
	return c.host.Do(func() error {
		l, err := netlink.LinkByIndex(v.index)
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	})
}

// lastCounters takes the host's end down, so that its counters rest.
func (c *churn) lastCounters(v *vethLife) (counters byDirection, err error) {
	err = c.host.Do(func() error {
		l, err := netlink.LinkByIndex(v.index)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetDown(l); err != nil {
			return err
		}
		return ktest.Eventually(ktest.Patience, "counters at rest", func() bool {
			before := counters
			if l, err = netlink.LinkByIndex(v.index); err == nil {
				counters = ledgerOf(l)
			}
			return counters == before
		})
	})
	return counters, err
}
