// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
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
	// detach ends the attachment. An attachment that is gone already, with its
	// interface or by another's hand, is not an error.
	detach() error
}

// hooks are an interface's two, indexed by flows.Direction.
type hooks [flows.Directions]hook

func (h hooks) detach() error {
	var errs []error
	for _, hook := range h {
		if hook != nil {
			errs = append(errs, hook.detach())
		}
	}
	return errors.Join(errs...)
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

type tcxHook struct{ link link.Link }

// attachTCX attaches at the head, so that nobody's verdict hides a packet from
// us unless he attaches there later.
func (a *attacher) attachTCX(ifindex int, direction flows.Direction) (hook, error) {
	at := ebpf.AttachTCXIngress
	if direction == flows.Receive {
		at = ebpf.AttachTCXEgress
	}
	l, err := link.AttachTCX(link.TCXOptions{
		Interface: ifindex, Program: a.programs[direction], Attach: at, Anchor: link.Head(),
	})
	if err != nil {
		return nil, fmt.Errorf("attach %s program with TCX: %w", direction, err)
	}
	return tcxHook{l}, nil
}

// detach also reaches a device that has moved to another network namespace,
// where closing the link alone would do: the kernel drops it with its last user.
func (h tcxHook) detach() error {
	if err := h.link.Close(); err != nil {
		return fmt.Errorf("detach TCX link: %w", err)
	}
	return nil
}
