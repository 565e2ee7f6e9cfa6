// SPDX-License-Identifier: Apache-2.0

package page

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/geo"
	"github.com/podmeter/podmeter/flows/plain"
	"github.com/podmeter/podmeter/metrics"
)

// mostRows is how many rows of a table are sent, those that grow most: some 20 kB in all,
// whatever the limits of series are.
const mostRows = 50

// state is an answer. Times are in milliseconds since 1970, 0 for none; bytes are
// indexed by direction, sent first.
type state struct {
	Node    string `json:"node"`
	Version string `json:"version"`
	Started int64  `json:"started"`
	Now     int64  `json:"now"`
	// AsOf is when the counters were as they are told, Watch when Moved began.
	AsOf  int64 `json:"asOf"`
	Watch int64 `json:"watch"`
	Moved pair  `json:"moved"`
	// LastDrain is when the last drain ended.
	LastDrain int64 `json:"lastDrain"`
	// GrownSeconds is the time in which rows have grown by what they tell; 0 if nothing
	// can be said of rates yet.
	GrownSeconds float64 `json:"grownSeconds"`

	ConservationErrorBytes uint64         `json:"conservationErrorBytes"`
	LostBytes              uint64         `json:"lostBytes"`
	UnboundBytes           uint64         `json:"unboundBytes"` // of all that wait
	Waiting                []waitingRow   `json:"waiting"`
	Books                  books          `json:"books"`
	Interfaces             map[string]int `json:"interfaces"`
	PodStates              map[string]int `json:"podStates"`

	// Total and Grown are those of all pods' rows.
	Total   pair             `json:"total"`
	Grown   pair             `json:"grown"`
	Pods    section[podRow]  `json:"pods"`
	Edges   section[edgeRow] `json:"edges"`
	Located bool             `json:"located"`
	// Attributions are what the databases' licences ask to be said.
	Attributions []geo.Attribution `json:"attributions"`
	Places       section[atRow]    `json:"places"`
}

// section is a table: the rows that grew most, and the sum of the others.
type section[R any] struct {
	Rows   []R `json:"rows"`
	Others int `json:"others"`
	Rest   row `json:"rest"`
}

// row is what every row of a table has.
type row struct {
	Total pair `json:"total"`
	Grown pair `json:"grown"`
}

func (r *row) add(o row) {
	r.Total.add(o.Total)
	r.Grown.add(o.Grown)
}

// take replaces a direction by another row's.
func (r *row) take(d flows.Direction, from *row) {
	r.Total[d], r.Grown[d] = from.Total[d], from.Grown[d]
}

// turn makes sent of received: as the other end would have it.
func (r *row) turn() {
	for _, p := range []*pair{&r.Total, &r.Grown} {
		p[flows.Transmit], p[flows.Receive] = p[flows.Receive], p[flows.Transmit]
	}
}

type podRow struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	row
}

type partyRow struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

type edgeRow struct {
	Local    partyRow `json:"local"`
	Peer     partyRow `json:"peer"`
	Locality string   `json:"locality"`
	row
}

type atRow struct {
	Country      string `json:"country"`
	City         string `json:"city"`
	ASN          string `json:"asn"`
	Organization string `json:"organization"`
	// At is latitude and longitude in degrees; nil if unknown.
	At *[2]float64 `json:"at"`
	row
}

// waitingRow is an interface whose bytes wait for its pod. Gone is 0 while it is there.
type waitingRow struct {
	Interface string   `json:"interface"`
	Since     int64    `json:"since"`
	Gone      int64    `json:"gone"`
	Bytes     uint64   `json:"bytes"`
	Needs     []string `json:"needs"` // addresses of the pod
}

// describe returns the state of a snapshot, which is the last that the history has.
func (p *Page) describe(snapshot *flows.Snapshot, a metrics.Agent) *state {
	h := &p.history
	before := h.before()
	pods := rowsOf(snapshot.Pods, before.pods, podOf)
	s := &state{
		Node: p.options.Node(), Version: p.options.Version, Started: milliseconds(p.started), Now: milliseconds(time.Now()),
		AsOf: milliseconds(snapshot.End), Watch: milliseconds(h.began), Moved: h.moved,
		LastDrain: milliseconds(a.LastDrain), GrownSeconds: h.span().Seconds(),
		ConservationErrorBytes: a.ConservationErrorBytes, Books: newBooks(snapshot),
		Interfaces: a.Interfaces, PodStates: a.Pods, Located: p.options.Databases != nil, Attributions: p.attributions(),
		Pods:   top(pods, pod.compare, func(k pod, r row) podRow { return podRow{k.Namespace, k.Name, r} }),
		Edges:  top(edgesOf(snapshot, before.flows), edge.compare, newEdgeRow),
		Places: top(rowsOf(snapshot.Externals, before.places, placeOf), place.compare, newAtRow),
	}
	for _, bytes := range a.LostBytes {
		s.LostBytes += bytes
	}
	for _, r := range pods {
		s.Total.add(r.Total)
		s.Grown.add(r.Grown)
	}
	s.Waiting, s.UnboundBytes = waitingRows(snapshot.Exported)
	return s
}

// waitingRows returns what waits for a pod, the rows of most bytes and the sum of all.
func waitingRows(points []flows.Exported) (rows []waitingRow, sum uint64) {
	rows = []waitingRow{}
	for i := range points {
		point := &points[i]
		if !point.Waits() {
			continue
		}
		r := waitingRow{
			Interface: plain.Text(point.Name, plain.KernelLimit), Since: milliseconds(point.Since), Gone: milliseconds(point.Gone),
			Bytes: point.Waiting[flows.Transmit].Bytes + point.Waiting[flows.Receive].Bytes, Needs: []string{},
		}
		for _, address := range point.Needs {
			r.Needs = append(r.Needs, address.String())
		}
		rows, sum = append(rows, r), sum+r.Bytes
	}
	slices.SortStableFunc(rows, func(a, b waitingRow) int { return cmp.Compare(b.Bytes, a.Bytes) })
	return rows[:min(len(rows), mostRows)], sum
}

// attributions returns each once.
func (p *Page) attributions() []geo.Attribution {
	all := []geo.Attribution{}
	if p.options.Databases == nil {
		return all
	}
	for _, info := range p.options.Databases() {
		if a, ok := info.Attribution(); ok && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}

// top returns the rows that have grown most, then those with most bytes.
func top[K comparable, R any](rows map[K]row, compare func(a, b K) int, show func(K, row) R) section[R] {
	type entry struct {
		key K
		row
	}
	all := make([]entry, 0, len(rows))
	for key, r := range rows {
		all = append(all, entry{key, r})
	}
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(cmp.Compare(b.Grown.sum(), a.Grown.sum()), cmp.Compare(b.Total.sum(), a.Total.sum()), compare(a.key, b.key))
	})
	s := section[R]{Rows: make([]R, 0, min(len(all), mostRows))}
	for i, e := range all {
		if i < mostRows {
			s.Rows = append(s.Rows, show(e.key, e.row))
			continue
		}
		s.Others++
		s.Rest.add(e.row)
	}
	return s
}

func newEdgeRow(e edge, r row) edgeRow {
	return edgeRow{newPartyRow(e.Local), newPartyRow(e.Peer), e.Locality.String(), r}
}

func newPartyRow(p party) partyRow { return partyRow{p.Kind.String(), p.Namespace, p.Name} }

// newAtRow puts a place where its labels say, else in the middle of its country: series
// have coordinates on request only.
func newAtRow(p place, r row) atRow {
	latitude, longitude := p.Latitude, p.Longitude
	if latitude == "" || longitude == "" {
		latitude, longitude = geo.Centroid(p.Country)
	}
	shown := atRow{Country: p.Country, City: p.City, ASN: p.ASN, Organization: p.Organization, row: r}
	north, err1 := strconv.ParseFloat(latitude, 64)
	east, err2 := strconv.ParseFloat(longitude, 64)
	if err1 == nil && err2 == nil {
		shown.At = &[2]float64{north, east}
	}
	return shown
}

func milliseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
