// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"golang.org/x/sys/unix"
)

// firstHostPoint is FIRST_HOST_POINT of flow.h. The point of a cgroup is this and the
// inode of its directory: no two that are there have the same.
const firstHostPoint = 1 << 31

// AttachCgroup is the mode of a pod that is metered at its cgroup.
const AttachCgroup AttachMode = "cgroup"

// HostPod is a pod in the node's own network. It has no interface: what its sockets
// send and receive is counted where it passes its cgroup, from the IP header on.
type HostPod struct {
	// UID is the pod's, as its cgroup is called.
	UID string
	// Cgroup is the path of its directory in the v2 hierarchy.
	Cgroup string
}

func (p HostPod) name() string {
	if p.Cgroup == "" {
		return "" // it is not known yet
	}
	return filepath.Base(p.Cgroup)
}

// registries are the attachments of all kinds.
func (m *Meter) registries() [2]*registry { return [2]*registry{m.attachments, m.hosts} }

func (m *Meter) registryOf(point uint32) *registry {
	if isHostPoint(point) {
		return m.hosts
	}
	return m.attachments
}

// MeterHostPods attaches to the cgroups of these pods, and lets go of those of all
// others, and of those where podmeter's programs would switch off a foreign one, see
// [Meter.Yields]. What cannot be attached is tried again by the next call; the error says
// why. A foreign program that comes later is found by the next call.
func (m *Meter) MeterHostPods(pods []HostPod) error {
	m.hosting.Lock()
	defer m.hosting.Unlock()
	wanted, err := hostPoints(pods)
	m.yields.forgetAbsent(wanted)
	errs := []error{err, m.yieldHosts(wanted)}
	for _, point := range m.hosts.points((*attachment).living) {
		pod, there := wanted[point]
		m.hosts.with(point, func(a *attachment) {
			if there && a.podUID == "" { // adopted before the checkpoint knew it
				a.podUID, a.name = pod.UID, pod.name()
			}
			there = there && a.podUID == pod.UID
		})
		if there {
			delete(wanted, point)
		} else {
			errs = append(errs, m.leaveHost(point))
		}
	}
	for _, point := range slices.Sorted(maps.Keys(wanted)) {
		errs = append(errs, m.joinHost(point, wanted[point]))
	}
	return errors.Join(append(errs, m.leaveYielded(wanted))...)
}

// hostPoints are the pods by their points, but for those that have ended.
func hostPoints(pods []HostPod) (map[uint32]HostPod, error) {
	var errs []error
	all := make(map[uint32]HostPod, len(pods))
	for _, pod := range pods {
		point, err := hostPoint(pod.Cgroup)
		if err == nil {
			all[point] = pod
		} else if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return all, errors.Join(errs...)
}

// coverPreempted makes the drains wait for programs of cgroups too.
func (m *Meter) coverPreempted() error {
	m.gate <- struct{}{}
	defer func() { <-m.gate }()
	if m.released {
		return ErrClosed
	}
	return m.grace.coverPreempted()
}

// hostPoint returns the point of a cgroup.
func hostPoint(cgroup string) (uint32, error) {
	info, err := os.Stat(cgroup)
	if err != nil {
		return 0, fmt.Errorf("find cgroup: %w", err)
	}
	return pointOfCgroup(info.Sys().(*syscall.Stat_t).Ino), nil
}

func isHostPoint(point uint32) bool { return point >= firstHostPoint }

func pointOfCgroup(id uint64) uint32 { return firstHostPoint | uint32(id) }

// joinHost attaches to a pod's cgroup. What its sockets did before is not known, as
// nothing has counted it.
func (m *Meter) joinHost(point uint32, pod HostPod) error {
	if err := errors.Join(m.coverPreempted(), m.freePoint(m.hosts, point)); err != nil {
		return err
	}
	m.hosts.enter(newHostAttachment(point, pod), byDirection{})
	err := m.attachHost(point, pod.Cgroup)
	if err == nil {
		m.log.Debug("attached", "cgroup", pod.Cgroup)
		return nil
	}
	m.hosts.with(point, func(a *attachment) { a.vanished = true })
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		err = nil // it has ended meanwhile
	}
	return errors.Join(err, m.giveUp(m.hosts, point))
}

func newHostAttachment(point uint32, pod HostPod) *attachment {
	return &attachment{
		point: point, name: pod.name(), podUID: pod.UID, mode: AttachCgroup,
		attached: time.Now(), peerNamespace: -1, ledger: ledger{settled: true},
	}
}

// attachHost attaches both programs, or none.
func (m *Meter) attachHost(point uint32, cgroup string) error {
	if err := m.drainer.createPoint(point); err != nil {
		return err
	}
	programs, err := m.loadHost(point)
	if err != nil {
		return err
	}
	defer programs.Close() // their links keep them
	var h hooks
	for direction, program := range byDirectionOf(programs) {
		if h[direction], err = m.attachCgroup(point, flows.Direction(direction), cgroup, program); err != nil {
			return errors.Join(err, h.detach())
		}
	}
	m.hosts.with(point, func(a *attachment) { a.enter(h, AttachCgroup) })
	return nil
}

func byDirectionOf(p *bpf.HostPrograms) [flows.Directions]*ebpf.Program {
	return [flows.Directions]*ebpf.Program{flows.Transmit: p.PodmeterHostTransmit, flows.Receive: p.PodmeterHostReceive}
}

// loadHost loads the programs of a point, which count into the meter's maps.
func (m *Meter) loadHost(point uint32) (*bpf.HostPrograms, error) {
	spec, err := bpf.LoadHost()
	if err != nil {
		return nil, fmt.Errorf("read BPF object of cgroups: %w", err)
	}
	if err := spec.Variables[bpf.HostVarHostPoint].Set(point); err != nil {
		return nil, fmt.Errorf("set point: %w", err)
	}
	shared := m.objects.shared()
	for name, its := range shared {
		spec.Maps[name].MaxEntries = its.MaxEntries()
		spec.Maps[name].Flags |= its.Flags() & unix.BPF_F_MMAPABLE
	}
	var programs bpf.HostPrograms
	if err := spec.LoadAndAssign(&programs, &ebpf.CollectionOptions{MapReplacements: shared}); err != nil {
		return nil, fmt.Errorf("load BPF programs of a cgroup: %w", err)
	}
	return &programs, nil
}

func (m *Meter) attachCgroup(point uint32, direction flows.Direction, cgroup string, program *ebpf.Program) (hook, error) {
	to := [flows.Directions]ebpf.AttachType{flows.Transmit: ebpf.AttachCGroupInetEgress, flows.Receive: ebpf.AttachCGroupInetIngress}
	l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: to[direction], Program: program})
	if err != nil {
		return nil, fmt.Errorf("attach to cgroup %s: %w", cgroup, err)
	}
	p, err := m.attacher.pinLink(l, int(point), direction)
	if err != nil {
		return nil, err
	}
	return cgroupHook{p}, nil
}

// cgroupHook is a program on a cgroup.
type cgroupHook struct{ pinnedLink }

// alive reports whether the program is on the cgroup of the point, which is there.
func (h cgroupHook) alive(point int) (bool, error) {
	info, err := h.link.Info()
	if err != nil {
		return false, fmt.Errorf("look at link: %w", err)
	}
	at := info.Cgroup()
	return at != nil && at.CgroupId != 0 && pointOfCgroup(at.CgroupId) == uint32(point), nil
}

func (cgroupHook) mayReturn() bool { return false }

// detach ends the link itself first: what a pin keeps ends some time after the pin.
func (h cgroupHook) detach() error { return errors.Join(h.link.Detach(), h.pinnedLink.detach()) }

// dropCgroup ends the pinned links of a cgroup, if there are any.
func (a *attacher) dropCgroup(point uint32) error {
	var errs []error
	for direction := range flows.Direction(flows.Directions) {
		p, err := a.openLink(int(point), direction)
		switch {
		case err != nil: // whatever it is
			errs = append(errs, remove(p.pin))
		case p.link != nil:
			errs = append(errs, cgroupHook{p}.detach())
		}
	}
	return errors.Join(errs...)
}

// leaveHost lets go of a cgroup; its last packets are still to be drained.
func (m *Meter) leaveHost(point uint32) error {
	var h hooks
	m.hosts.with(point, func(a *attachment) { h, a.hooks = a.hooks, hooks{} })
	err := h.detach()
	m.hosts.with(point, func(a *attachment) {
		a.vanished = true
		a.leave(time.Now())
		m.log.Debug("left", "cgroup", a.name)
	})
	return err
}

// adoptHost goes on with the programs of a point that an earlier agent has attached to
// a cgroup, or lets go of it. cgroup is its path, empty if that is not known.
func (m *Meter) adoptHost(point uint32, cgroup string) {
	var a *attachment
	m.hosts.with(point, func(known *attachment) { a = known })
	if a == nil { // attached since the last checkpoint: its pod is told later
		a = newHostAttachment(point, HostPod{})
		m.hosts.put(a)
	}
	h, err := m.findHost(point, cgroup)
	if err != nil {
		m.log.Warn("adopt attachment", "cgroup", a.name, "error", err)
	}
	m.hosts.with(point, func(a *attachment) {
		switch {
		case h != hooks{} && a.living():
			a.enter(h, AttachCgroup)
			h = hooks{}
		case a.living():
			a.vanished = true
			a.leave(time.Now())
		}
	})
	if err := h.detach(); err != nil { // of what is not adopted
		m.log.Warn("detach", "cgroup", a.name, "error", err)
	}
}

// findHost returns the pinned links of a point with this build's programs, none if they
// are not both there, or switch off a foreign program.
func (m *Meter) findHost(point uint32, cgroup string) (hooks, error) {
	if foreign, err := hostForeign(cgroup); foreign != nil || err != nil {
		m.yields.left(cgroup, foreign)
		return hooks{}, errors.Join(err, m.attacher.dropCgroup(point))
	}
	if err := m.grace.coverPreempted(); err != nil { // before Run: nobody drains
		return hooks{}, err
	}
	programs, err := m.loadHost(point)
	if err != nil {
		return hooks{}, err
	}
	defer programs.Close()
	var h hooks
	for direction, program := range byDirectionOf(programs) {
		direction := flows.Direction(direction)
		p, err := m.attacher.openLink(int(point), direction)
		if err == nil && p.link != nil {
			h[direction], err = adoptLink(cgroupHook{p}, program, int(point), direction)
		}
		if err != nil || h[direction] == nil {
			return hooks{}, errors.Join(err, h.detach())
		}
	}
	return h, nil
}

// HostPods returns the pods that are metered at their cgroups, by the names of these.
func (m *Meter) HostPods() []InterfaceStatus { return m.hosts.status() }
