// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// XDPMode is how what uplinks receive is metered.
type XDPMode string

// The modes. Off is TC, as for what they transmit. Native is an XDP program in the
// driver (Linux 5.18), which sees frames as they come from the wire, before GRO.
const (
	XDPOff    XDPMode = "off"
	XDPNative XDPMode = "native"
	// xdpGeneric is for tests: generic XDP drops what it cannot copy or linearize, and
	// so would have a say in what becomes of a packet.
	xdpGeneric XDPMode = "generic"
)

// ErrXDP is returned for an interface on which XDP was asked for and cannot be. It
// is left alone.
var ErrXDP = errors.New("no XDP on this interface")

func (o *Options) xdp() bool { return o.XDP == XDPNative || o.XDP == xdpGeneric }

// trim takes out of a collection what is not asked for: a kernel that lacks what
// the XDP program needs still has TC.
func (o *Options) trim(spec *ebpf.CollectionSpec) {
	if !o.xdp() {
		delete(spec.Programs, bpf.MeterProgPodmeterXdp)
	}
}

// assign takes maps and programs out of a collection, the XDP program if it is there.
func assign(collection *ebpf.Collection, o *bpf.MeterObjects) error {
	if collection.Programs[bpf.MeterProgPodmeterXdp] != nil {
		return collection.Assign(o)
	}
	var tc struct {
		Clock      *ebpf.Program `ebpf:"podmeter_clock"`
		Receive    *ebpf.Program `ebpf:"podmeter_receive"`
		Transmit   *ebpf.Program `ebpf:"podmeter_transmit"`
		L3Receive  *ebpf.Program `ebpf:"podmeter_l3_receive"`
		L3Transmit *ebpf.Program `ebpf:"podmeter_l3_transmit"`
	}
	err := errors.Join(collection.Assign(&tc), collection.Assign(&o.MeterMaps), collection.Assign(&o.MeterVariables))
	o.PodmeterClock, o.PodmeterReceive, o.PodmeterTransmit = tc.Clock, tc.Receive, tc.Transmit
	o.PodmeterL3Receive, o.PodmeterL3Transmit = tc.L3Receive, tc.L3Transmit
	return err
}

// explain names what the kernel lacks when loading has failed.
func (o *Options) explain(err error) error {
	if o.xdp() && errors.Is(features.HaveProgramHelper(ebpf.XDP, asm.FnXdpLoadBytes), ebpf.ErrNotSupported) {
		return fmt.Errorf("%w: XDP needs bpf_xdp_load_bytes, which Linux 5.18 has: %w", ErrKernel, err)
	}
	return explain(err)
}

// permit tells whether an interface may be attached to as the mode wants it.
func (w *linkWatcher) permit(l netlink.Link) error {
	attrs := l.Attrs()
	switch {
	case !w.options.xdp():
	case w.selector.pods.wants(l):
		return fmt.Errorf("%w: %s is a pod's by --interfaces, and a pod's never gets XDP; exclude it there if it is none", ErrXDP, attrs.Name)
	case attrs.Xdp != nil && attrs.Xdp.Attached:
		return fmt.Errorf("%w: %s has an XDP program already, of id %d; with --xdp-mode off it can be metered", ErrXDP, attrs.Name, attrs.Xdp.ProgId)
	}
	return nil
}

// xdpHook is a link of XDP.
type xdpHook struct{ pinnedLink }

// shownMode is how an interface's programs are attached, XDP included.
func (a *attachment) shownMode() AttachMode {
	if _, ok := a.hooks[flows.Receive].(xdpHook); ok {
		return "xdp+" + a.mode
	}
	return a.mode
}

// useXDP makes the attacher meter with XDP what uplinks receive.
func (a *attacher) useXDP(o *Options, program *ebpf.Program) {
	a.uplinks = o.Role == RoleUplinks
	if !a.uplinks || !o.xdp() {
		return
	}
	a.xdp, a.xdpFlags = program, link.XDPDriverMode
	if o.XDP == xdpGeneric {
		a.xdpFlags = link.XDPGenericMode
	}
}

// by returns what attaches or finds a direction's program: that of TC, unless XDP
// takes its place.
func (a *attacher) by(direction flows.Direction, tc, xdp hookMaker) hookMaker {
	if a.xdp != nil && direction == flows.Receive {
		return xdp
	}
	return tc
}

func (a *attacher) attachXDP(ifindex int, direction flows.Direction, _ *ebpf.Program) (hook, error) {
	l, err := link.AttachXDP(link.XDPOptions{Program: a.xdp, Interface: ifindex, Flags: a.xdpFlags})
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return nil, fmt.Errorf("%w: its driver has no native XDP, and generic XDP is not used as it may drop packets; "+
			"--xdp-mode off meters it: %w", ErrXDP, err)
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return nil, fmt.Errorf("%w: another's program is there; --xdp-mode off meters it: %w", ErrXDP, err)
	case err != nil:
		return nil, fmt.Errorf("attach %s program with XDP: %w", direction, err)
	}
	pinned, err := a.pinLink(l, ifindex, direction)
	if err != nil {
		return nil, err
	}
	return xdpHook{pinned}, nil
}

// findXDP returns the pinned link of an interface with this build's program, nil
// if there is none that is attached there.
func (a *attacher) findXDP(ifindex int, direction flows.Direction, _ *ebpf.Program) (hook, error) {
	pinned, err := a.openLink(ifindex, direction)
	if pinned.link == nil || err != nil {
		return nil, err
	}
	return adoptLink(xdpHook{pinned}, a.xdp, ifindex, direction)
}

// replaceMode ends what an agent with the other XDP mode attached where an uplink
// receives: both together would count twice.
func (a *attacher) replaceMode(ifindex int) error {
	if !a.uplinks {
		return nil
	}
	if a.xdp != nil { // a TCX link is ended where its pin is looked for
		filter, err := a.findNetlink(ifindex, flows.Receive, a.programs[flows.Receive])
		if filter == nil || err != nil {
			return err
		}
		return filter.detach()
	}
	pinned, err := a.openLink(ifindex, flows.Receive)
	if pinned.link == nil || err != nil {
		return err
	}
	info, err := pinned.link.Info()
	if err != nil || info.XDP() == nil {
		return errors.Join(err, pinned.release())
	}
	return pinned.detach()
}

// dropXDP ends what is left where an uplink receives when no mode has the other half.
func (a *attacher) dropXDP(ifindex int) error {
	if a.xdp == nil {
		return nil
	}
	found, err := a.findXDP(ifindex, flows.Receive, nil)
	if found == nil || err != nil {
		return err
	}
	return found.detach()
}

// mayReturn does not matter: what passed an uplink elsewhere is nobody's.
func (xdpHook) mayReturn() bool { return false }

// alive compares the link's program with the interface's. The link alone would not
// do: it follows its device into other network namespaces.
func (h xdpHook) alive(ifindex int) (bool, error) {
	info, err := h.link.Info()
	if err != nil {
		return false, fmt.Errorf("look at XDP link: %w", err)
	}
	if at := info.XDP(); at == nil || at.Ifindex != uint32(ifindex) {
		return false, nil
	}
	l, err := netlink.LinkByIndex(ifindex)
	var notFound netlink.LinkNotFoundError
	if errors.As(err, &notFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for XDP link: %w", err)
	}
	xdp := l.Attrs().Xdp
	return xdp != nil && xdp.Attached && xdp.ProgId == uint32(info.Program), nil
}
