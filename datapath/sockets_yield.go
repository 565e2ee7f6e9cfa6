// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/bpf"
)

// foreignInterval is the least time between two looks for foreign programs: drains may come
// one after the other.
const foreignInterval = time.Second

// Foreign returns the foreign program that those of sockets would switch off, nil if there
// is none: they are attached then. It may be called from any goroutine.
func (s *Sockets) Foreign() *ForeignProgram { return s.foreign.Load() }

func (s *Sockets) findForeign() (*ForeignProgram, error) {
	var types []ebpf.AttachType
	for _, hook := range s.objects.Hooks() {
		types = append(types, hook.Attach)
	}
	return newForeignLook(types...).find(s.options.Cgroups)
}

// begin attaches, unless that would switch off a foreign program. It looks again
// afterwards, as one may have come in between.
func (s *Sockets) begin() error {
	for attached := false; ; attached = true {
		s.looked = s.now()
		found, err := s.findForeign()
		switch {
		case err != nil:
			return err
		case found != nil:
			return s.yield(found)
		case attached:
			s.foreign.Store(nil)
			s.readEarlier() // what comes meanwhile, the programs see
			s.needed, s.kept = s.now(), 0
			return nil
		}
		if err := s.attach(); err != nil {
			return err
		}
	}
}

// yield lets go of what is attached. The maps are not gone on with by a later agent, as
// nobody sees sockets close.
func (s *Sockets) yield(found *ForeignProgram) error {
	s.seen = s.looked
	if known := s.foreign.Load(); known == nil || *known != *found {
		s.log.Warn("sockets are not looked at: podmeter's programs would switch off a foreign one", "foreign", *found)
	}
	s.foreign.Store(found)
	var errs []error
	for _, l := range s.links {
		errs = append(errs, l.Detach()) // what a pin keeps ends some time after the pin
	}
	return errors.Join(append(errs, s.closeLinks(), s.remove())...)
}

// follow attaches and lets go as foreign programs go and come.
func (s *Sockets) follow() error {
	if s.now().Sub(s.looked) < foreignInterval {
		return nil
	}
	s.looked = s.now()
	found, err := s.findForeign()
	switch known := s.Foreign(); {
	case err != nil && known == nil: // what is attached stays
		s.log.Warn("look for foreign programs", "error", err)
		return nil
	case err != nil:
		return err
	case found != nil:
		return s.yield(found)
	case known == nil, s.looked.Sub(s.seen) < s.options.yieldPause:
		return nil
	}
	if err := errors.Join(s.forgetAll(), s.pinMaps(nil), s.begin()); err != nil {
		return errors.Join(fmt.Errorf("attach after a foreign program has gone: %w", err), s.closeLinks(), s.remove())
	}
	if s.Foreign() == nil {
		s.log.Info("sockets are looked at again: the foreign program has gone")
	}
	return nil
}

// forgetAll empties the map of sockets, which no program writes.
func (s *Sockets) forgetAll() error {
	var all []bpf.SocketSocketKey
	err := s.readAll(func() { all = all[:0] }, func(keys []bpf.SocketSocketKey, _ []bpf.SocketSocketOwners) {
		all = append(all, keys...)
	})
	if err != nil {
		return err
	}
	if len(all) > 0 {
		if _, err := s.objects.Sockets.BatchDelete(all, nil); err != nil {
			return fmt.Errorf("forget sockets: %w", err)
		}
	}
	clear(s.shares.found)
	return s.shares.end()
}
