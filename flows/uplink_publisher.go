// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"sync"

	"github.com/podmeter/podmeter/flows/plain"
)

// UplinkPublisherOptions are what an [UplinkPublisher] needs.
type UplinkPublisherOptions struct {
	Table     *UplinkTable
	Directory Directory
	Places    Places // nil without GeoIP databases
	NAT64     NAT64  // as in [PublisherOptions]
	// Persist is as in [PublisherOptions].
	Persist func(*UplinkState)
}

// UplinkPublisher attributes epochs of uplinks and adds them to their table. It is
// no [Publisher]: behind an uplink is no pod, so there is nothing to wait for.
type UplinkPublisher struct {
	options     UplinkPublisherOptions
	attribution attribution

	mu    sync.Mutex
	stats Stats
}

// NewUplinkPublisher returns a publisher that has seen nothing.
func NewUplinkPublisher(options UplinkPublisherOptions) *UplinkPublisher {
	return &UplinkPublisher{
		options:     options,
		attribution: attribution{directory: options.Directory, places: options.Places, nat64: options.NAT64},
	}
}

// Publish attributes an epoch and adds it to the table. It implements the
// datapath's Sink.
func (p *UplinkPublisher) Publish(epoch *Epoch) error {
	batch := p.attribute(epoch)
	p.options.Table.add(batch, func() {
		if p.options.Persist == nil {
			return
		}
		state := p.options.Table.state()
		state.Stats = p.Stats()
		p.options.Persist(state)
	})
	return nil
}

// Restore makes the publisher and its table go on from a state. It comes before
// the first epoch.
func (p *UplinkPublisher) Restore(s *UplinkState) error {
	p.stats = s.Stats
	return p.options.Table.restore(s)
}

// Stats returns the publisher's own counters. Nothing of an uplink is ever unbound.
func (p *UplinkPublisher) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

func (p *UplinkPublisher) attribute(epoch *Epoch) *uplinkBatch {
	batch := &uplinkBatch{
		start: epoch.Start, end: epoch.End, living: make(map[string]bool),
		totals: make(map[uplinkTotal]Counters), rows: make(map[uplinkRow]Counters),
	}
	names := make(map[Point]string, len(epoch.Interfaces))
	for _, i := range epoch.Interfaces {
		name := plain.Text(i.Name, plain.KernelLimit)
		names[i.Point] = name
		if i.Gone.IsZero() {
			batch.living[name] = true
		}
	}
	for i := range epoch.Records {
		record := &epoch.Records[i]
		if name, known := names[record.Key.Point]; known {
			batch.addRow(p.labels(name, record), record.Key.Direction, record.Counters)
		}
	}
	p.account(epoch, names, batch)
	return batch
}

// account adds the totals and the publisher's own counters.
func (p *UplinkPublisher) account(epoch *Epoch, names map[Point]string, batch *uplinkBatch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.count(epoch)
	for _, total := range epoch.Totals {
		name, known := names[total.Point]
		if !known {
			p.stats.LostNoInterfaceBytes += total.Bytes
			continue
		}
		batch.addTotal(name, total)
	}
}

// addTotal adds what an uplink counted, and what of it is in no flow.
func (b *uplinkBatch) addTotal(name string, total Total) {
	key := uplinkTotal{name, total.Direction}
	sum := b.totals[key]
	sum.Add(total.Counters)
	b.totals[key] = sum
	b.addRow(UplinkLabels{Interface: name}, total.Direction, total.Unplaced)
	b.addRow(UplinkLabels{Interface: name}, total.Direction, total.Residue)
}

func (b *uplinkBatch) addRow(labels UplinkLabels, direction Direction, counters Counters) {
	key := uplinkRow{labels, direction}
	sum := b.rows[key]
	sum.Add(counters)
	b.rows[key] = sum
}

// labels returns those of a record: less than a pod's flows have, as an uplink
// sees all of a node's peers.
func (p *UplinkPublisher) labels(name string, record *Record) UplinkLabels {
	all := p.attribution.labels(record)
	labels := UplinkLabels{
		Interface: name, PeerKind: all.flow.PeerKind, Locality: all.flow.Locality,
		Country: all.external.Country, ASN: all.external.ASN, Organization: all.external.Organization,
	}
	if labels.PeerKind == PeerNode || labels.PeerKind == PeerCIDR {
		labels.Peer = all.flow.Peer
	}
	return labels
}
