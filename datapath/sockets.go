// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"golang.org/x/sys/unix"
)

const (
	// DefaultMaxSockets is how many sockets are known at once where nothing else is asked
	// for: those that are open and those that were closed a short while ago.
	DefaultMaxSockets = 131072

	// SocketMapMemory is by how many bytes the maps of sockets and of their health can grow where
	// nothing else is asked for: entries, as the kernel hands out memory.
	SocketMapMemory = DefaultMaxSockets*socketBytes + sets*DefaultMaxHealth*healthBytes

	socketBytes, healthBytes = 256, 512

	// socketMemory is for how long a closed socket is known while there is room: TCP may
	// still answer for it (TCP_TIMEWAIT_LEN).
	socketMemory = 60 * time.Second
	// socketSlack is by how much the stamp of a close and that of a drain can differ, with
	// what is still on its way then.
	socketSlack = time.Second
	// socketPrefix begins the name of every pin of sockets.
	socketPrefix = "sockets_"
	// socketLinkPrefix begins that of every link.
	socketLinkPrefix = socketPrefix + "link_"
)

// ErrCgroups is returned when the cgroups of the node cannot be used.
var ErrCgroups = errors.New("no root of a cgroup v2 hierarchy")

// SocketOptions are what [Meter.OpenSockets] needs.
type SocketOptions struct {
	// Cgroups is the root of the cgroup v2 hierarchy, or of a part of it.
	Cgroups string
	// MaxSockets is how many are known at once; DefaultMaxSockets if 0.
	MaxSockets uint32
	// MaxHealth is of how many ends of TCP connections the health is known in an epoch;
	// DefaultMaxHealth if 0.
	MaxHealth uint32

	// namespaces returns paths of the network namespaces whose sockets are looked for that
	// are older than the programs.
	namespaces func() []string
	// yieldPause is yieldPause, or a test's.
	yieldPause time.Duration
}

// Sockets are the programs that see sockets come and go below a cgroup, and their map.
// They are pinned beside the meter's: they go on when the agent ends, and the next one
// adopts them.
type Sockets struct {
	options SocketOptions
	path    string
	log     *slog.Logger
	clock   *ebpf.Program
	epoch   *ebpf.Map // the meter's
	objects bpf.SocketObjects
	links   []link.Link
	reader  *batchReader[bpf.SocketSocketKey, bpf.SocketSocketOwners]
	shares  *shareBook
	now     func() time.Time
	// interval is the time between two drains, drainEarly asks for one before its time.
	interval   time.Duration
	drainEarly func()

	commands commands
	// read is how many entries there were, closed those of them that are past.
	read   int
	closed []closedSocket
	// needed is from when on flows are still to be read: the last time that sockets were,
	// or the beginning.
	needed time.Time
	// kept is how many were left in the map then.
	kept int
	// earlier are sockets that are older than the programs.
	earlier map[bpf.SocketSocketKey]flows.Socket

	// foreign is what the programs are not attached for, nil if they are; looked is when it
	// was last asked for, seen when it was last there.
	foreign      atomic.Pointer[ForeignProgram]
	looked, seen time.Time
}

// CgroupRoot returns the root of the cgroup v2 hierarchy that is mounted at a path, or at
// unified below it as systemd does where both versions are in use. The error says what it
// is instead.
func CgroupRoot(path string) (string, error) {
	for _, root := range []string{path, filepath.Join(path, "unified")} {
		var s unix.Statfs_t
		if err := unix.Statfs(root, &s); err != nil || s.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		// All but the root have it.
		if exists(filepath.Join(root, "cgroup.events")) {
			return "", fmt.Errorf("%w at %s, which is a cgroup within: in a container the node's is to be mounted", ErrCgroups, root)
		}
		return root, nil
	}
	return "", fmt.Errorf("%w at %s", ErrCgroups, path)
}

// OpenSockets attaches to a cgroup, or adopts what an earlier agent has attached. Where a
// foreign program would be switched off by that it waits for its end, see
// [Sockets.Foreign]. It is called before Run. Whoever calls it closes the sockets after the
// meter.
func (m *Meter) OpenSockets(o SocketOptions) (*Sockets, error) {
	if o.MaxSockets == 0 {
		o.MaxSockets = DefaultMaxSockets
	}
	if o.MaxHealth == 0 {
		o.MaxHealth = DefaultMaxHealth
	}
	if o.namespaces == nil {
		o.namespaces = namespacesOfProcesses
	}
	if o.yieldPause == 0 {
		o.yieldPause = yieldPause
	}
	s := &Sockets{
		options: o, path: m.options.PinPath, interval: m.options.DrainInterval, drainEarly: m.drainEarly,
		log: m.log, clock: m.objects.PodmeterClock, epoch: m.objects.data[mapEpoch], now: time.Now, commands: make(commands),
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.reader = newBatchReader[bpf.SocketSocketKey, bpf.SocketSocketOwners](s.objects.Sockets, 1)
	s.reader.options = &ebpf.BatchOptions{ElemFlags: uint64(ebpf.LookupLock)}
	var err error
	if s.shares, err = newShareBook(s.objects.SocketShares); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	err = s.begin()
	if err == nil {
		err = m.drainer.addHealth([sets]*ebpf.Map{s.objects.Health0, s.objects.Health1})
	}
	if err != nil {
		return nil, errors.Join(err, s.Close(), s.remove())
	}
	return s, nil
}

// DropSockets removes what an earlier agent has attached that looked at sockets.
func (m *Meter) DropSockets() error { return (&Sockets{path: m.options.PinPath}).remove() }

// mapPins are the collection's names of the maps by those of their pins. What is of
// another layout or size has another name, and is not gone on with.
func (s *Sockets) mapPins() map[string]string {
	return map[string]string{
		fmt.Sprintf("%sv%d_%d", socketPrefix, bpf.SocketLayout, s.options.MaxSockets): bpf.SocketMapSockets,
		fmt.Sprintf("%sudp_v%d", socketPrefix, bpf.SocketLayout):                      bpf.SocketMapUdpSockets,
		socketPrefix + "outcomes": bpf.SocketMapSocketOutcomes,
	}
}

// laterPins are those of maps that begin anew without the others, in the same way: shares,
// which the next read of all sockets sets right, and the health of connections, whose
// entries live for two epochs.
func (s *Sockets) laterPins() map[string]string {
	pins := map[string]string{
		fmt.Sprintf("%sshares_v%d", socketPrefix, bpf.ShareLayout):                                bpf.SocketMapSocketShares,
		fmt.Sprintf("%sshares_health_v%d_%d", socketPrefix, bpf.ShareLayout, s.options.MaxHealth): bpf.SocketMapHealthShares,
		fmt.Sprintf("%stcp_v%d", socketPrefix, bpf.HealthLayout):                                  bpf.SocketMapTcpSockets,
	}
	for n, name := range healthMaps {
		pins[fmt.Sprintf("%shealth_%d_v%d_%d", socketPrefix, n, bpf.HealthLayout, s.options.MaxHealth)] = name
	}
	return pins
}

// load loads the programs with the pinned maps and the meter's epoch.
func (s *Sockets) load() error {
	spec, err := s.sizedSpec()
	if err != nil {
		return err
	}
	adopted, err := s.openMaps(spec)
	if err != nil {
		return err
	}
	epoch, err := s.epoch.Clone()
	if err != nil {
		return errors.Join(fmt.Errorf("clone map of the epoch: %w", err), closeAll(adopted))
	}
	adopted[mapEpoch] = epoch
	spec.Maps[mapEpoch].Flags |= epoch.Flags() & unix.BPF_F_MMAPABLE
	err = spec.LoadAndAssign(&s.objects, &ebpf.CollectionOptions{MapReplacements: adopted})
	if err = errors.Join(err, closeAll(adopted)); err != nil {
		return fmt.Errorf("load BPF programs of sockets: %w", err)
	}
	return s.pinMaps(adopted)
}

func (s *Sockets) sizedSpec() (*ebpf.CollectionSpec, error) {
	spec, err := bpf.LoadSocket()
	if err != nil {
		return nil, fmt.Errorf("read BPF object of sockets: %w", err)
	}
	if err := bpf.SizeSockets(spec, s.options.MaxSockets, s.options.MaxHealth); err != nil {
		return nil, err
	}
	ticks, err := rttTicks()
	if err != nil {
		return nil, err
	}
	if err := spec.Variables[bpf.SocketVarRttInterval].Set(ticks); err != nil {
		return nil, fmt.Errorf("set interval of RTTs: %w", err)
	}
	return spec, nil
}

// openMaps opens the pinned maps. If one is missing or another's, all pins are removed,
// those of other builds too; not so for laterPins.
func (s *Sockets) openMaps(spec *ebpf.CollectionSpec) (map[string]*ebpf.Map, error) {
	adopted := make(map[string]*ebpf.Map)
	for pin, name := range s.mapPins() {
		m := s.openMap(pin, spec.Maps[name])
		if m == nil {
			return make(map[string]*ebpf.Map), errors.Join(closeAll(adopted), s.remove())
		}
		adopted[name] = m
	}
	for pin, name := range s.laterPins() {
		if m := s.openMap(pin, spec.Maps[name]); m != nil {
			adopted[name] = m
		}
	}
	return adopted, nil
}

// openMap returns nil if there is no such map, or not as it should be.
func (s *Sockets) openMap(pin string, spec *ebpf.MapSpec) *ebpf.Map {
	m, err := ebpf.LoadPinnedMap(filepath.Join(s.path, pin), nil)
	if err == nil {
		if err = spec.Compatible(m); err == nil {
			return m
		}
		err = errors.Join(err, m.Close())
	}
	if !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("a pinned map of sockets is not podmeter's: begin anew", "pin", pin, "error", err)
	}
	return nil
}

// pinMaps pins the maps that were not adopted, and removes the pins of those that are not
// gone on with.
func (s *Sockets) pinMaps(adopted map[string]*ebpf.Map) error {
	own := s.mapPins()
	maps.Copy(own, s.laterPins())
	if err := s.removePins(func(pin string) bool {
		name, known := own[pin]
		return !strings.HasPrefix(pin, socketLinkPrefix) && (!known || adopted[name] == nil)
	}); err != nil {
		return err
	}
	pins := make(map[string]*ebpf.Map)
	for pin, name := range own {
		if adopted[name] == nil {
			pins[pin] = s.mapOf(name)
		}
	}
	return pinMaps(s.path, pins)
}

// mapOf returns a map by the collection's name.
func (s *Sockets) mapOf(name string) *ebpf.Map {
	return map[string]*ebpf.Map{
		bpf.SocketMapSockets: s.objects.Sockets, bpf.SocketMapUdpSockets: s.objects.UdpSockets,
		bpf.SocketMapSocketOutcomes: s.objects.SocketOutcomes, bpf.SocketMapTcpSockets: s.objects.TcpSockets,
		bpf.SocketMapHealth0: s.objects.Health0, bpf.SocketMapHealth1: s.objects.Health1,
		bpf.SocketMapSocketShares: s.objects.SocketShares, bpf.SocketMapHealthShares: s.objects.HealthShares,
	}[name]
}

// remove removes all pins of sockets, and with them what is attached.
func (s *Sockets) remove() error { return s.removePins(func(string) bool { return true }) }

// removePins removes the pins of sockets that are chosen by name.
func (s *Sockets) removePins(chosen func(pin string) bool) error {
	entries, err := os.ReadDir(s.path)
	if err != nil {
		return fmt.Errorf("list pins: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		if name := entry.Name(); strings.HasPrefix(name, socketPrefix) && chosen(name) {
			errs = append(errs, remove(filepath.Join(s.path, name)))
		}
	}
	return errors.Join(errs...)
}

func (s *Sockets) attach() error {
	info, err := os.Stat(s.options.Cgroups)
	if err != nil {
		return fmt.Errorf("find cgroup: %w", err)
	}
	id := info.Sys().(*syscall.Stat_t).Ino
	for name, hook := range s.objects.Hooks() {
		pin := filepath.Join(s.path, socketLinkPrefix+name)
		if s.adoptLink(pin, id, hook.Program) {
			continue
		}
		l, err := link.AttachCgroup(link.CgroupOptions{Path: s.options.Cgroups, Attach: hook.Attach, Program: hook.Program})
		if err != nil {
			return fmt.Errorf("attach %s to cgroup %s: %w", name, s.options.Cgroups, err)
		}
		s.links = append(s.links, l)
		if err := l.Pin(pin); err != nil {
			return fmt.Errorf("pin %s link: %w", name, err)
		}
	}
	return nil
}

// adoptLink gives the program to the pinned link of a cgroup; false if there is none, or
// it cannot be used and is removed.
func (s *Sockets) adoptLink(pin string, cgroup uint64, program *ebpf.Program) bool {
	l, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err == nil {
		err = updateLink(l, cgroup, program)
	}
	if err != nil {
		s.log.Warn("a link of sockets cannot be gone on with: attach anew", "pin", pin, "error", err)
		if l != nil {
			l.Close()
		}
		if err := remove(pin); err != nil {
			s.log.Warn("remove pin", "error", err)
		}
		return false
	}
	s.links = append(s.links, l)
	return true
}

func updateLink(l link.Link, cgroup uint64, program *ebpf.Program) error {
	info, err := l.Info()
	if err != nil {
		return err
	}
	if at := info.Cgroup(); at == nil || at.CgroupId != cgroup {
		return errors.New("it is attached elsewhere")
	}
	return l.Update(program)
}

// Close lets go of programs and maps, which stay attached and go on by their pins.
func (s *Sockets) Close() error {
	return errors.Join(s.closeLinks(), s.objects.Close())
}

func (s *Sockets) closeLinks() error {
	var errs []error
	for _, l := range s.links {
		errs = append(errs, l.Close())
	}
	s.links = nil
	return errors.Join(errs...)
}
