// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/podmeter/podmeter/flows"
	"golang.org/x/sys/unix"
)

// linkPrefix begins the name of every pinned link: link_<ifindex>_<direction>.
const linkPrefix = "link_"

// tcxHook is a link of TCX, which its pin keeps when the agent ends.
type tcxHook struct {
	link link.Link
	side flows.Direction
	pin  string
}

// tcxAttachType is the hook of a side, see [attacher.side].
func tcxAttachType(side flows.Direction) ebpf.AttachType {
	if side == flows.Receive {
		return ebpf.AttachTCXEgress
	}
	return ebpf.AttachTCXIngress
}

func (a *attacher) linkPin(ifindex int, direction flows.Direction) string {
	return filepath.Join(a.path, linkPrefix+strconv.Itoa(ifindex)+"_"+direction.String())
}

// attachTCX attaches at the head, so that nobody's verdict hides a packet from
// us unless he attaches there later.
func (a *attacher) attachTCX(ifindex int, direction flows.Direction) (hook, error) {
	l, err := link.AttachTCX(link.TCXOptions{
		Interface: ifindex, Program: a.programs[direction], Attach: tcxAttachType(a.side(direction)), Anchor: link.Head(),
	})
	if err != nil {
		return nil, fmt.Errorf("attach %s program with TCX: %w", direction, err)
	}
	h := tcxHook{link: l, side: a.side(direction), pin: a.linkPin(ifindex, direction)}
	// A pin of an earlier interface with this index holds a link without effect.
	if err = remove(h.pin); err == nil {
		err = l.Pin(h.pin)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pin %s link: %w", direction, err), l.Close())
	}
	return h, nil
}

// findTCX returns the pinned link of an interface with this build's program, nil
// if there is none that is attached there.
func (a *attacher) findTCX(ifindex int, direction flows.Direction) (hook, error) {
	h := tcxHook{side: a.side(direction), pin: a.linkPin(ifindex, direction)}
	var err error
	h.link, err = link.LoadPinnedLink(h.pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open pinned link: %w", err)
	}
	alive, err := h.alive(ifindex)
	if err == nil && alive {
		err = h.link.Update(a.programs[direction])
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("adopt %s link: %w", direction, err), h.detach())
	}
	if !alive {
		return nil, h.detach()
	}
	return h, nil
}

// removeStrangers removes the pins of links whose interface the maps do not know,
// and the marks of qdiscs that cannot be believed any more.
func (a *attacher) removeStrangers(known map[uint32]byDirection) error {
	entries, err := os.ReadDir(a.path)
	if err != nil {
		return fmt.Errorf("list pins: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		stays := true
		if rest, link := strings.CutPrefix(entry.Name(), linkPrefix); link {
			number, _, _ := strings.Cut(rest, "_")
			point, err := strconv.ParseUint(number, 10, 32)
			_, stays = known[uint32(point)]
			stays = stays && err == nil
		} else if number, mark := strings.CutPrefix(entry.Name(), clsactPrefix); mark {
			ifindex, err := strconv.ParseUint(number, 10, 31)
			stays = err == nil && len(ourFilters(device(int(ifindex)), a.handle)) > 0
		}
		if !stays {
			errs = append(errs, remove(filepath.Join(a.path, entry.Name())))
		}
	}
	return errors.Join(errs...)
}

// detach also reaches a device that has moved to another network namespace: the
// kernel drops the link with its last user.
func (h tcxHook) detach() error {
	if err := errors.Join(remove(h.pin), h.link.Close()); err != nil {
		return fmt.Errorf("detach TCX link: %w", err)
	}
	return nil
}

// release closes the link and leaves it attached, by its pin.
func (h tcxHook) release() error { return h.link.Close() }

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
