// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/podmeter/podmeter/flows"
)

// report is the reconciliation.
type report struct {
	balances []balance
	versions []versions
	held     []string // identities that hold
	faults   []string
}

// balance is an interface in one direction: what podmeter exports, what passed
// before the attachment, and what the kernel says.
type balance struct {
	entry
	direction                flows.Direction
	podmeter, before, kernel flows.Counters
	difference               flows.Counters // podmeter minus kernel, modulo 2^64
}

func (r *report) fault(format string, arguments ...any) {
	r.faults = append(r.faults, fmt.Sprintf(format, arguments...))
}

func (r *report) add(b balance) {
	r.balances = append(r.balances, b)
	if !b.difference.IsZero() {
		r.fault("%s of %s, %s: podmeter minus kernel is %s", b.device, b.pod, b.direction, signed(b.difference))
	}
}

// identity notes whether two sums by pod are equal.
func (r *report) identity(what string, left, right map[podName]uint64) {
	both := maps.Clone(left)
	maps.Copy(both, right)
	equal := true
	for _, pod := range slices.SortedFunc(maps.Keys(both), func(a, b podName) int {
		return strings.Compare(a.String(), b.String())
	}) {
		if left[pod] != right[pod] {
			equal = false
			r.fault("%s: %s has %d on the left and %d on the right", what, pod, left[pod], right[pod])
		}
	}
	if len(both) == 0 {
		r.fault("%s: no pod has such series", what)
	} else if equal {
		r.held = append(r.held, what)
	}
}

// err is nil if everything is equal.
func (r *report) err() error {
	if len(r.faults) == 0 {
		return nil
	}
	return errors.New("podmeter's numbers are not what they must be:\n  " + strings.Join(r.faults, "\n  "))
}

// write writes the reconciliation for a reader.
func (r *report) write(w io.Writer) {
	var b strings.Builder
	b.WriteString("\nReconciliation: bytes / packets of each interface, as podmeter exports them and as the kernel counts them\n\n")
	block(&b, balanceColumns(), r.balanceRows())
	b.WriteString("\n  not counted: passed before the agent first started, so podmeter + before = kernel\n" +
		"  counted: passed before the attachment of an interface that came later; it is in podmeter's number\n")
	b.WriteString("\nBytes by version of IP\n\n")
	block(&b, versionColumns(), r.versionRows())
	b.WriteString("\nIdentities\n\n")
	for _, identity := range r.held {
		b.WriteString("  equal  " + identity + "\n")
	}
	for _, fault := range r.faults {
		b.WriteString("  NOT EQUAL  " + fault + "\n")
	}
	b.WriteString("\n" + r.conclusion() + "\n")
	io.WriteString(w, b.String()) // whoever cannot read it has the error
}

func block(b *strings.Builder, columns []column, rows [][]string) {
	for _, l := range layout(columns, rows, 0) {
		b.WriteString("  " + l + "\n")
	}
}

// conclusion is the last line.
func (r *report) conclusion() string {
	if len(r.faults) > 0 {
		return fmt.Sprintf("Not equal: %d of the above.", len(r.faults))
	}
	var all flows.Counters
	for _, b := range r.balances {
		all.Add(b.podmeter)
	}
	return fmt.Sprintf("All equal: %s bytes in %s packets, exact on %d interfaces in both directions.",
		grouped(all.Bytes), grouped(all.Packets), len(r.balances)/flows.Directions)
}

func balanceColumns() []column {
	return []column{
		{head: "POD"}, {head: "INTERFACE"}, {head: "DIRECTION"}, {head: "PODMETER", right: true},
		{head: "BEFORE ATTACH", right: true}, {head: ""}, {head: "KERNEL", right: true}, {head: "DIFFERENCE", right: true},
	}
}

func (r *report) balanceRows() [][]string {
	var rows [][]string
	for _, b := range r.balances {
		device, before := b.device, "not counted"
		if b.gone {
			device += " (gone)"
		}
		if b.metered.Seeded {
			before = "counted"
		}
		rows = append(rows, []string{
			b.pod.String(), device, b.direction.String(), pair(b.podmeter), pair(b.before), before,
			pair(b.kernel), signed(b.difference),
		})
	}
	return rows
}

func versionColumns() []column {
	return []column{
		{head: "POD"}, {head: "IPV4", right: true}, {head: "IPV6", right: true}, {head: "NOT KNOWN", right: true},
	}
}

func (r *report) versionRows() [][]string {
	var rows [][]string
	for _, v := range r.versions {
		rows = append(rows, []string{v.pod.String(), grouped(v.four), grouped(v.six), grouped(v.rest)})
	}
	return rows
}

func grouped(n uint64) string { return humanize.Comma(int64(n)) }

// pair is bytes / packets.
func pair(c flows.Counters) string { return grouped(c.Bytes) + " / " + grouped(c.Packets) }

// signed is a difference of counters.
func signed(c flows.Counters) string {
	return humanize.Comma(int64(c.Bytes)) + " / " + humanize.Comma(int64(c.Packets))
}
