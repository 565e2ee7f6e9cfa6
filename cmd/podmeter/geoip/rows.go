// SPDX-License-Identifier: Apache-2.0

package geoip

import (
	"net/netip"
	"slices"

	"github.com/podmeter/podmeter/flows"
	"github.com/prometheus/common/model"
)

// What came of a row of an answer: the values of the label result.
const (
	rowPlaced    = "placed"
	rowUnknown   = "unknown"    // exported without coordinates: no database knows where it is
	rowNoLabel   = "no_label"   // it lacks the label of the address
	rowNoAddress = "no_address" // the label's value is no IP address
	rowNotPublic = "not_public" // private, link-local, multicast …: in no particular place
	rowHistogram = "histogram"  // its value is no number
)

// rowResults are all of them.
func rowResults() []string {
	return []string{rowPlaced, rowUnknown, rowNoLabel, rowNoAddress, rowNotPublic, rowHistogram}
}

// placeLabels are those of geo_ip that every row has.
func placeLabels() []string {
	return []string{"ip", "country", "city", "zip", "latitude", "longitude"}
}

// row is one of geo_ip.
type row struct {
	address netip.Addr
	carried []string // indexed as the labels to carry over
	place   flows.Place
	value   float64
}

// labels returns the values of the labels: the place's, then those carried over.
func (r row) labels() []string {
	p := r.place
	return append([]string{r.address.String(), p.Country, p.City, p.PostalCode, p.Latitude, p.Longitude}, r.carried...)
}

// tally is what came of the rows of an answer.
type tally struct {
	rows    map[string]int    // by result
	example map[string]string // the first value of the label, by result
}

// placer makes rows of samples.
type placer struct {
	places  flows.Places
	ipLabel model.LabelName
	carry   []string
}

func newPlacer(places flows.Places, config Config) placer {
	return placer{places: places, ipLabel: model.LabelName(config.IPLabel), carry: config.Labels}
}

// rows returns those of an answer, in order; those that are equal in the address
// and in what is carried over are added.
func (p placer) rows(vector model.Vector) ([]row, tally) {
	t := tally{rows: make(map[string]int), example: make(map[string]string)}
	var rows []row
	for _, sample := range vector {
		r, result := p.row(sample)
		if t.rows[result] == 0 {
			t.example[result] = string(sample.Metric[p.ipLabel])
		}
		t.rows[result]++
		if result == rowPlaced || result == rowUnknown {
			rows = append(rows, r)
		}
	}
	return merged(rows), t
}

// row places one sample.
func (p placer) row(sample *model.Sample) (row, string) {
	text, found := sample.Metric[p.ipLabel]
	if !found || text == "" {
		return row{}, rowNoLabel
	}
	address, err := netip.ParseAddr(string(text))
	if err != nil {
		return row{}, rowNoAddress
	}
	address = address.Unmap().WithZone("")
	switch {
	case flows.KindOf(address) != flows.PeerExternal:
		return row{}, rowNotPublic
	case sample.Histogram != nil:
		return row{}, rowHistogram
	}
	placed := address
	if embedded, ok := flows.NAT64(nil).Embedded(address); ok {
		placed = embedded
	}
	r := row{address: address, place: p.places.Handle(placed).Value(), value: float64(sample.Value)}
	for _, label := range p.carry {
		r.carried = append(r.carried, string(sample.Metric[model.LabelName(label)]))
	}
	if r.place.Latitude == "" {
		return r, rowUnknown
	}
	return r, rowPlaced
}

// merged sorts rows and adds those that would be one series.
func merged(rows []row) []row {
	slices.SortFunc(rows, compare)
	var sums []row
	for _, r := range rows {
		if last := len(sums) - 1; last >= 0 && compare(sums[last], r) == 0 {
			sums[last].value += r.value
			continue
		}
		sums = append(sums, r)
	}
	return sums
}

func compare(a, b row) int {
	if c := a.address.Compare(b.address); c != 0 {
		return c
	}
	return slices.Compare(a.carried, b.carried)
}
