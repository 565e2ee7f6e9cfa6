// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/podmeter/podmeter/cmd/podmeter/table"
	"github.com/podmeter/podmeter/cmd/podmeter/verify"
	"github.com/podmeter/podmeter/flows"
)

// onYourNode is the demo's last word.
const onYourNode = "On a node of your own, 'podmeter verify' compares the same beside a running agent."

// report is the reconciliation.
type report struct {
	balances []balance
	versions []versions
	held     []string // invariants that hold
	faults   []string
}

// balance is an interface in one direction.
type balance struct {
	entry
	direction flows.Direction
	verify.Row
}

func (r *report) fault(format string, arguments ...any) {
	r.faults = append(r.faults, fmt.Sprintf(format, arguments...))
}

func (r *report) add(b balance) {
	r.balances = append(r.balances, b)
	switch {
	case b.Verdict == verify.Equal, b.metered.Name == "":
	case b.Verdict == verify.Unequal:
		r.fault("%s", b.Fault())
	default:
		r.fault("%s of %s, %s: not equal, but %q: %s", b.device, b.pod, b.direction, b.Verdict, b.Why)
	}
}

// invariant notes whether an invariant holds; the demo has pods of which it must.
func (r *report) invariant(i *verify.Invariant) {
	for _, fault := range i.Faults {
		r.fault("%s", fault.Text(i))
	}
	if i.Holders == 0 {
		r.fault("%s: no pod has such series", i.Name)
	} else if i.Holds() {
		r.held = append(r.held, i.Name)
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
	b.WriteString("\nInvariants\n\n")
	for _, invariant := range r.held {
		b.WriteString("  equal  " + invariant + "\n")
	}
	for _, fault := range r.faults {
		b.WriteString("  NOT EQUAL  " + fault + "\n")
	}
	b.WriteString("\n" + r.conclusion() + "\n\n" + onYourNode + "\n")
	io.WriteString(w, b.String()) // whoever cannot read it has the error
}

func block(b *strings.Builder, columns []table.Column, rows [][]string) {
	for _, l := range table.Layout(columns, rows, 0) {
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
		all.Add(b.Podmeter)
	}
	return fmt.Sprintf("All equal: %s bytes in %s packets, exact on %d interfaces in both directions.",
		grouped(all.Bytes), grouped(all.Packets), len(r.balances)/flows.Directions)
}

func balanceColumns() []table.Column {
	return []table.Column{
		{Head: "POD"}, {Head: "INTERFACE"}, {Head: "DIRECTION"}, {Head: "PODMETER", Right: true},
		{Head: "BEFORE ATTACH", Right: true}, {Head: ""}, {Head: "KERNEL", Right: true}, {Head: "DIFFERENCE", Right: true},
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
			b.pod.String(), device, b.direction.String(), verify.Counters(b.Podmeter), verify.Counters(b.metered.Before[b.direction]), before,
			verify.Counters(b.Kernel), b.Difference.String(),
		})
	}
	return rows
}

func versionColumns() []table.Column {
	return []table.Column{
		{Head: "POD"}, {Head: "IPV4", Right: true}, {Head: "IPV6", Right: true}, {Head: "NOT KNOWN", Right: true},
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
