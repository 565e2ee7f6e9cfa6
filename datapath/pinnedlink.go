// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/podmeter/podmeter/flows"
)

// linkPrefix begins the name of every pinned link: link_<point>_<direction>.
const linkPrefix = "link_"

// pinnedLink is a link of TCX or XDP, which its pin keeps when the agent ends.
type pinnedLink struct {
	link link.Link
	pin  string
}

// linkHook is a hook that is a link.
type linkHook interface {
	hook
	update(*ebpf.Program) error
}

func (a *attacher) linkPin(ifindex int, direction flows.Direction) string {
	return filepath.Join(a.path, linkPrefix+strconv.Itoa(ifindex)+"_"+direction.String())
}

// pinLink pins a link that was just attached, or ends it.
func (a *attacher) pinLink(l link.Link, ifindex int, direction flows.Direction) (pinnedLink, error) {
	p := pinnedLink{link: l, pin: a.linkPin(ifindex, direction)}
	// A pin of an earlier interface with this index holds a link without effect.
	err := remove(p.pin)
	if err == nil {
		err = l.Pin(p.pin)
	}
	if err != nil {
		return pinnedLink{}, errors.Join(fmt.Errorf("pin %s link: %w", direction, err), l.Close())
	}
	return p, nil
}

// openLink opens the pinned link of a direction; its link is nil if there is none.
func (a *attacher) openLink(ifindex int, direction flows.Direction) (pinnedLink, error) {
	p := pinnedLink{pin: a.linkPin(ifindex, direction)}
	l, err := link.LoadPinnedLink(p.pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("open pinned link: %w", err)
	}
	p.link = l
	return p, nil
}

// adoptLink gives the hook of a pinned link this build's program. One that is not
// attached to the interface, or takes no other program, is let go of.
func adoptLink(h linkHook, program *ebpf.Program, ifindex int, direction flows.Direction) (hook, error) {
	alive, err := h.alive(ifindex)
	if err == nil && alive {
		err = h.update(program)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("adopt %s link: %w", direction, err), h.detach())
	}
	if !alive {
		return nil, h.detach()
	}
	return h, nil
}

func (p pinnedLink) update(program *ebpf.Program) error { return p.link.Update(program) }

// detach also reaches a device that has moved to another network namespace: the
// kernel drops the link with its last user.
func (p pinnedLink) detach() error {
	if err := errors.Join(remove(p.pin), p.link.Close()); err != nil {
		return fmt.Errorf("detach link: %w", err)
	}
	return nil
}

// release closes the link and leaves it attached, by its pin.
func (p pinnedLink) release() error { return p.link.Close() }
