// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// bypassedLately is how long an interface counts as bypassed after packets were
// last seen to have gone round it.
const bypassedLately = time.Minute

// bypass is what reached a pod round the host's end of its veth: what the pod's
// end counts as received beyond what the host's end counts as sent. Without
// bypass a veth's two ends tell the same number, as the kernel takes both from one
// counter (veth_get_stats64), whatever offloads, XDP and drops do to it. The other
// way nothing can go round: what a pod sends passes the host's hook in any case.
type bypass struct {
	// base went round before and is not to be published; known is whether that
	// is known. From the first reading on, the base can only turn out lower.
	base  flows.Counters
	known bool
	// seeded was published; grew is when it last became more.
	seeded flows.Counters
	grew   time.Time
}

// estimate takes note that no more than most went round in all.
func (b *bypass) estimate(most flows.Counters) {
	most = surplus(most)
	if !b.known || b.seeded.IsZero() && int64(most.Packets) < int64(b.base.Packets) {
		b.base, b.known = most, true
	}
}

// exceeds reports whether so much is more than what is known of.
func (b *bypass) exceeds(round flows.Counters) bool {
	return int64(round.Sub(b.base).Sub(b.seeded).Packets) > 0
}

// read takes note that at least so much went round, and returns what of it has to
// be published.
func (b *bypass) read(least flows.Counters, at time.Time) flows.Counters {
	grown := surplus(least.Sub(b.base).Sub(b.seeded))
	if grown.Packets > 0 {
		b.seeded.Add(grown)
		b.grew = at
	}
	return grown
}

// lately reports whether packets went round in the time before.
func (b *bypass) lately(now time.Time) bool {
	return !b.grew.IsZero() && now.Sub(b.grew) < bypassedLately
}

// settled is the bypass of a device that is let go of: all of it needs no seeding
// any more.
func (b *bypass) settled() flows.Counters {
	base := b.base
	base.Add(b.seeded)
	return base
}

// podSides reads what the pods' ends of veths count, over one socket.
type podSides map[int]*nl.SocketHandle

// openPodSides opens the socket in the network namespace it is called in.
func openPodSides() (podSides, error) {
	socket, err := nl.GetNetlinkSocketAt(-1, -1, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	if err := socket.SetReceiveTimeout(&nl.SocketTimeoutTv); err != nil {
		socket.Close()
		return nil, fmt.Errorf("set timeout of netlink socket: %w", err)
	}
	return podSides{unix.NETLINK_ROUTE: {Socket: socket}}, nil
}

func (p podSides) close() { p[unix.NETLINK_ROUTE].Close() }

// received returns what the other end of a veth received, by its own counters. It
// is found by its ifindex in the network namespace with the given id, for which
// CAP_NET_ADMIN is enough.
func (p podSides) received(namespace, ifindex int) (flows.Counters, error) {
	const skipOtherStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS (linux/rtnetlink.h)
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	request.Sockets = p
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(ifindex)
	request.AddData(message)
	request.AddData(nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, nl.Uint32Attr(uint32(namespace))))
	// Not those of IPv6 and of virtual functions, which take as long as all the rest.
	request.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipOtherStats)))
	answers, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return flows.Counters{}, fmt.Errorf("read the counters of a pod's end: %w", err)
	}
	for _, answer := range answers {
		if c, found := receivedOf(answer); found {
			return c, nil
		}
	}
	return flows.Counters{}, errors.New("read the counters of a pod's end: the kernel tells none")
}

// receivedOf finds the counters in the answer: struct rtnl_link_stats64 begins with
// the packets received and sent and the bytes received (linux/if_link.h).
func receivedOf(answer []byte) (c flows.Counters, found bool) {
	const packets, bytes, least = 0, 16, 24
	if len(answer) < unix.SizeofIfInfomsg {
		return c, false
	}
	attributes, err := nl.ParseRouteAttr(answer[unix.SizeofIfInfomsg:])
	if err != nil {
		return c, false
	}
	for _, attribute := range attributes {
		if stats := attribute.Value; attribute.Attr.Type == unix.IFLA_STATS64 && len(stats) >= least {
			c.Packets = binary.NativeEndian.Uint64(stats[packets:])
			c.Bytes = binary.NativeEndian.Uint64(stats[bytes:])
			return c, true
		}
	}
	return c, false
}

// farEnd says where the other end of a veth is; ok is whether that is another
// network namespace: within one nothing can be redirected to the other end.
func farEnd(l netlink.Link) (namespace, ifindex int, ok bool) {
	attrs := l.Attrs()
	return attrs.NetNsID, attrs.ParentIndex, l.Type() == "veth" && attrs.NetNsID >= 0
}

// compareBypass reads the pods' ends of all veths that are metered, after their own
// links.
func (m *Meter) compareBypass(links []netlink.Link, now time.Time) error {
	return m.options.within(func() error {
		sides, err := openPodSides()
		if err != nil {
			return err
		}
		defer sides.close()
		for _, l := range links {
			m.readBypass(sides, l, now)
		}
		return nil
	})
}

// firstBypass learns what went round a veth before, as soon as it is attached.
func (m *Meter) firstBypass(l netlink.Link, now time.Time) error {
	known := true
	m.attachments.with(uint32(l.Attrs().Index), func(a *attachment) { known = a == nil || a.bypass.known })
	if known {
		return nil
	}
	sides, err := openPodSides()
	if err != nil {
		return err
	}
	defer sides.close()
	m.readBypass(sides, l, now)
	return nil
}

// readBypass compares a veth's other end with a reading of this one that was taken
// before. If that tells more than is known of, this end is read again: what came
// meanwhile did not go round.
func (m *Meter) readBypass(sides podSides, l netlink.Link, now time.Time) {
	namespace, ifindex, ok := farEnd(l)
	point, metered := uint32(l.Attrs().Index), false
	m.attachments.with(point, func(a *attachment) { metered = a != nil && a.metered() })
	if !ok || !metered {
		return
	}
	received, err := sides.received(namespace, ifindex)
	if err != nil {
		m.log.Debug("look at the pod's end", "interface", l.Attrs().Name, "error", err)
	}
	most, more := received.Sub(ledgerOf(l)[flows.Receive]), false
	m.attachments.with(point, func(a *attachment) {
		if a == nil {
			return
		}
		if a.blind = err != nil; !a.blind {
			a.bypass.estimate(most)
			more = a.bypass.exceeds(most)
		}
	})
	if !more {
		return
	}
	again, err := netlink.LinkByIndex(int(point))
	if err != nil {
		return // it has just vanished
	}
	least := received.Sub(ledgerOf(again)[flows.Receive])
	m.attachments.with(point, func(a *attachment) {
		if a != nil && a.metered() {
			a.seeds[flows.Receive].Add(a.bypass.read(least, now))
		}
	})
}
