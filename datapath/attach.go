// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink"
)

// AttachMode is how programs are attached to an interface.
type AttachMode string

// The modes. Auto takes TCX where the kernel has it (Linux 6.6), else netlink.
const (
	AttachAuto    AttachMode = "auto"
	AttachTCX     AttachMode = "tcx"
	AttachNetlink AttachMode = "netlink"
)

// hook is one attached program.
type hook interface {
	// alive reports whether the program still runs on the interface: others may
	// have deleted it, and another interface may have the index by now.
	alive(ifindex int) (bool, error)
	// detach ends the attachment. An attachment that is gone already, with its
	// interface or by another's hand, is not an error.
	detach() error
	// mayReturn reports whether the device may have moved to another network
	// namespace, where it is not at its place any more.
	mayReturn() bool
	// release lets go of what the agent holds of the attachment, which stays.
	release() error
}

// hookMaker attaches or finds the program of a direction on an interface.
type hookMaker func(ifindex int, direction flows.Direction, program *ebpf.Program) (hook, error)

// hooks are an interface's two, indexed by flows.Direction. One may be nil, where
// its direction cannot be metered.
type hooks [flows.Directions]hook

// detach ends the attachments, the last first: the qdisc that the first one made
// goes with it.
func (h hooks) detach() error {
	var errs []error
	for d := len(h) - 1; d >= 0; d-- {
		if h[d] != nil {
			errs = append(errs, h[d].detach())
		}
	}
	return errors.Join(errs...)
}

// mayReturn reports whether a device that vanished may be in another network
// namespace.
func (h hooks) mayReturn() bool {
	for _, hook := range h {
		if hook != nil && hook.mayReturn() {
			return true
		}
	}
	return false
}

// release lets go of the attachments, which stay.
func (h hooks) release() error {
	var errs []error
	for _, hook := range h {
		if hook != nil {
			errs = append(errs, hook.release())
		}
	}
	return errors.Join(errs...)
}

// alive reports whether all programs still run on the interface.
func (h hooks) alive(ifindex int) (bool, error) {
	for _, hook := range h {
		if hook == nil {
			continue
		}
		if alive, err := hook.alive(ifindex); !alive || err != nil {
			return false, err
		}
	}
	return true, nil
}

// attacher attaches both programs to interfaces.
type attacher struct {
	mode AttachMode
	// probed is whether AttachAuto has been found to be TCX or netlink.
	probed   bool
	programs [flows.Directions]*ebpf.Program
	// headerless are the programs for interfaces without an Ethernet header, see [headerless].
	headerless [flows.Directions]*ebpf.Program
	// path is where links are pinned; handle, made of it, tells our netlink
	// filters from those of another.
	path   string
	handle uint32
	// uplinks is whether the interfaces lead out of the node.
	uplinks bool
	// xdp, if not nil, meters what they receive.
	xdp      *ebpf.Program
	xdpFlags link.XDPAttachFlags
}

func newAttacher(mode AttachMode, objects *bpf.MeterObjects, path string) *attacher {
	return &attacher{
		mode:       mode,
		programs:   [flows.Directions]*ebpf.Program{objects.PodmeterTransmit, objects.PodmeterReceive},
		headerless: [flows.Directions]*ebpf.Program{objects.PodmeterL3Transmit, objects.PodmeterL3Receive},
		path:       path, handle: filterHandle(path),
	}
}

// headerless reports whether packets of a link have no Ethernet header, as those of WireGuard,
// tun, PPP and tunnels of IP: its programs then begin at the network header.
func headerless(l netlink.Link) bool {
	encapsulation := l.Attrs().EncapType // of if_arp.h, in netlink's words
	return encapsulation != "ether" && encapsulation != "loopback"
}

// programsFor returns the programs for an interface.
func (a *attacher) programsFor(headerless bool) [flows.Directions]*ebpf.Program {
	if headerless {
		return a.headerless
	}
	return a.programs
}

// attach attaches both programs, or none. The returned mode is the one that was
// used.
func (a *attacher) attach(ifindex int, headerless bool) (hooks, AttachMode, error) {
	programs := a.programsFor(headerless)
	if a.mode == AttachNetlink {
		h, err := a.attachBoth(ifindex, programs, a.attachNetlink)
		return h, AttachNetlink, err
	}
	h, err := a.attachBoth(ifindex, programs, a.attachTCX)
	if a.mode == AttachAuto && errors.Is(err, ebpf.ErrNotSupported) {
		a.mode = AttachNetlink
		return a.attach(ifindex, headerless)
	}
	return h, AttachTCX, err
}

func (a *attacher) attachBoth(ifindex int, programs [flows.Directions]*ebpf.Program, attach hookMaker) (hooks, error) {
	var h hooks
	for direction := range flows.Direction(flows.Directions) {
		var err error
		if h[direction], err = a.by(direction, attach, a.attachXDP)(ifindex, direction, programs[direction]); err != nil {
			return hooks{}, errors.Join(err, h.detach())
		}
	}
	return h, nil
}
