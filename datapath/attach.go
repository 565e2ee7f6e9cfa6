// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"golang.org/x/sys/unix"
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
}

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
	mode     AttachMode
	programs [flows.Directions]*ebpf.Program
	// handle tells our netlink filters from those of another pin path.
	handle uint32
}

func newAttacher(mode AttachMode, objects *bpf.MeterObjects, handle uint32) *attacher {
	return &attacher{
		mode:     mode,
		programs: [flows.Directions]*ebpf.Program{objects.PodmeterTransmit, objects.PodmeterReceive},
		handle:   handle,
	}
}

// attach attaches both programs, or none. The returned mode is the one that was
// used.
func (a *attacher) attach(ifindex int) (hooks, AttachMode, error) {
	if a.mode == AttachNetlink {
		h, err := a.attachBoth(ifindex, a.attachNetlink)
		return h, AttachNetlink, err
	}
	h, err := a.attachBoth(ifindex, a.attachTCX)
	if a.mode == AttachAuto && errors.Is(err, ebpf.ErrNotSupported) {
		a.mode = AttachNetlink
		return a.attach(ifindex)
	}
	return h, AttachTCX, err
}

func (a *attacher) attachBoth(ifindex int, attach func(int, flows.Direction) (hook, error)) (hooks, error) {
	var h hooks
	for direction := range flows.Direction(flows.Directions) {
		var err error
		if h[direction], err = attach(ifindex, direction); err != nil {
			return hooks{}, errors.Join(err, h.detach())
		}
	}
	return h, nil
}

type tcxHook struct {
	link      link.Link
	direction flows.Direction
}

func tcxAttachType(direction flows.Direction) ebpf.AttachType {
	if direction == flows.Receive {
		return ebpf.AttachTCXEgress
	}
	return ebpf.AttachTCXIngress
}

// attachTCX attaches at the head, so that nobody's verdict hides a packet from
// us unless he attaches there later.
func (a *attacher) attachTCX(ifindex int, direction flows.Direction) (hook, error) {
	at := tcxAttachType(direction)
	l, err := link.AttachTCX(link.TCXOptions{
		Interface: ifindex, Program: a.programs[direction], Attach: at, Anchor: link.Head(),
	})
	if err != nil {
		return nil, fmt.Errorf("attach %s program with TCX: %w", direction, err)
	}
	return tcxHook{l, direction}, nil
}

// detach also reaches a device that has moved to another network namespace,
// where closing the link alone would do: the kernel drops it with its last user.
func (h tcxHook) detach() error {
	if err := h.link.Close(); err != nil {
		return fmt.Errorf("detach TCX link: %w", err)
	}
	return nil
}

// alive looks for the link among those of the interface. What the link itself
// says would not do: it follows its device into other network namespaces.
func (h tcxHook) alive(ifindex int) (bool, error) {
	info, err := h.link.Info()
	if err != nil {
		return false, fmt.Errorf("look at TCX link: %w", err)
	}
	attached, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: tcxAttachType(h.direction)})
	if errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for TCX link: %w", err)
	}
	for _, program := range attached.Programs {
		if id, ok := program.LinkID(); ok && id == info.ID {
			return true, nil
		}
	}
	return false, nil
}
