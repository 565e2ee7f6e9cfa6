// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/podmeter/podmeter/flows"
	"golang.org/x/sys/unix"
)

// tcxHook is a link of TCX.
type tcxHook struct {
	pinnedLink
	side flows.Direction
}

// tcxAttachType is the hook of a side, see [attacher.side].
func tcxAttachType(side flows.Direction) ebpf.AttachType {
	if side == flows.Receive {
		return ebpf.AttachTCXEgress
	}
	return ebpf.AttachTCXIngress
}

// attachTCX attaches at the head, so that nobody's verdict hides a packet from
// us unless he attaches there later.
func (a *attacher) attachTCX(ifindex int, direction flows.Direction, program *ebpf.Program) (hook, error) {
	l, err := link.AttachTCX(link.TCXOptions{
		Interface: ifindex, Program: program, Attach: tcxAttachType(a.side(direction)), Anchor: link.Head(),
	})
	if err != nil {
		return nil, fmt.Errorf("attach %s program with TCX: %w", direction, err)
	}
	pinned, err := a.pinLink(l, ifindex, direction)
	if err != nil {
		return nil, err
	}
	return tcxHook{pinnedLink: pinned, side: a.side(direction)}, nil
}

// findTCX returns the pinned link of an interface with this program of this build, nil
// if there is none that is attached there.
func (a *attacher) findTCX(ifindex int, direction flows.Direction, program *ebpf.Program) (hook, error) {
	pinned, err := a.openLink(ifindex, direction)
	if pinned.link == nil || err != nil {
		return nil, err
	}
	h := tcxHook{pinnedLink: pinned, side: a.side(direction)}
	return adoptLink(h, program, ifindex, direction)
}

// mayReturn knows: a link stays with its device until that is deleted.
func (h tcxHook) mayReturn() bool {
	info, err := h.link.Info()
	return err == nil && info.TCX() != nil && info.TCX().Ifindex != 0
}

// alive looks for the link among those of the interface. What the link itself
// says would not do: it follows its device into other network namespaces.
func (h tcxHook) alive(ifindex int) (bool, error) {
	info, err := h.link.Info()
	if err != nil {
		return false, fmt.Errorf("look at TCX link: %w", err)
	}
	attached, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: tcxAttachType(h.side)})
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
