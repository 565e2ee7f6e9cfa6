// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink"
)

// PodEnds reads what the pods' ends of veths have received, which CAP_NET_ADMIN in the
// host's network namespace is enough for. It is for one goroutine, and is to be closed.
type PodEnds struct{ sides podSides }

// OpenPodEnds opens one in the network namespace of the calling thread.
func OpenPodEnds() (*PodEnds, error) {
	sides, err := openPodSides()
	if err != nil {
		return nil, err
	}
	return &PodEnds{sides}, nil
}

// Received returns what the other end of a link has received by its own counters. ok is
// whether the link is a veth that leads into another network namespace: no other has
// an end that packets could be redirected to.
func (p *PodEnds) Received(l netlink.Link) (received flows.Counters, ok bool, err error) {
	namespace, ifindex, ok := farEnd(l)
	if !ok {
		return received, false, nil
	}
	received, err = p.sides.received(namespace, ifindex)
	return received, true, err
}

// Close closes the socket.
func (p *PodEnds) Close() { p.sides.close() }

// ListLinks lists the links of the calling thread's network namespace.
func ListLinks() ([]netlink.Link, error) { return listLinks() }
