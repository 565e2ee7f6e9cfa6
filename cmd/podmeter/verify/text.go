// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/podmeter/podmeter/cmd/podmeter/table"
	"github.com/podmeter/podmeter/flows"
)

// Write writes the report for a reader.
func (r *Report) Write(w io.Writer) error {
	var b strings.Builder
	r.writeRows(&b)
	r.writeReasons(&b)
	b.WriteString("\nInvariants\n\n")
	for i := range r.Invariants {
		writeInvariant(&b, &r.Invariants[i])
	}
	r.writeRest(&b)
	b.WriteString("\n" + r.Conclusion() + "\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) writeRows(b *strings.Builder) {
	if len(r.Rows) == 0 {
		b.WriteString("No interface of a pod was there to be compared.\n")
		return
	}
	columns := []table.Column{
		{Head: "POD"}, {Head: "INTERFACE"}, {Head: "DIRECTION"}, {Head: "STATE"}, {Head: "KERNEL", Right: true},
		{Head: "BEFORE", Right: true}, {Head: "PODMETER", Right: true}, {Head: "PREDICTED", Right: true},
		{Head: "DIFFERENCE", Right: true}, {Head: "VERDICT"},
	}
	var cells [][]string
	for _, row := range r.Rows {
		cells = append(cells, []string{
			row.podText(), row.Interface, row.Direction, row.State, Counters(row.Kernel), Counters(row.Before),
			Counters(row.Podmeter), row.Predicted.String(), row.Difference.String(), string(row.Verdict),
		})
	}
	for _, line := range table.Layout(columns, cells, 0) {
		b.WriteString(line + "\n")
	}
	b.WriteString("\nAll are bytes / packets. KERNEL is what the interface itself has counted, BEFORE what of it passed before\n" +
		"podmeter counted there and is on no series, PODMETER what is exported, PREDICTED what its state explains.\n" +
		"DIFFERENCE = KERNEL - BEFORE - PODMETER.\n")
}

// writeReasons says why rows are not equal.
func (r *Report) writeReasons(b *strings.Builder) {
	var lines [][]string
	for _, row := range r.Rows {
		if row.Why != "" {
			lines = append(lines, []string{string(row.Verdict), row.Interface + ", " + row.Direction, row.Why})
		}
	}
	writeLines(b, lines)
}

// writeLines writes lines of cells, after an empty line if there are any.
func writeLines(b *strings.Builder, lines [][]string) {
	if len(lines) == 0 {
		return
	}
	b.WriteString("\n")
	columns := make([]table.Column, len(lines[0]))
	for _, line := range table.Layout(columns, lines, 0)[1:] {
		b.WriteString(line + "\n")
	}
}

func writeInvariant(b *strings.Builder, i *Invariant) {
	if i.Holds() {
		fmt.Fprintf(b, "  equal      %s\n", i.Name)
		return
	}
	for _, fault := range i.Faults {
		fmt.Fprintf(b, "  NOT EQUAL  %s\n", fault.Text(i))
	}
}

// writeRest says what is in no flow, what is on no series, and what was left out.
func (r *Report) writeRest(b *strings.Builder) {
	var lines [][]string
	line := func(what, format string, arguments ...any) {
		lines = append(lines, []string{what, fmt.Sprintf(format, arguments...)})
	}
	if r.CheckpointProblem != "" {
		line("not saved", "a restart would not know what came since, and series by peer would begin anew: %s", r.CheckpointProblem)
	}
	for _, p := range r.Unattributed {
		line("unattributed", "%s: %s bytes are exported and in no flow", Pod{p.Namespace, p.Pod}, grouped(p.Bytes))
	}
	for _, u := range r.Unseen {
		line("", "%s of %s, %s: %s %s", u.Interface, Pod{u.Namespace, u.Pod}, u.Direction, Counters(u.Counters), u.Why)
	}
	if r.ResidueBytes+r.UnplacedBytes > 0 {
		line("", "%s bytes evicted and %s not inserted: the maps were full (--map-memory)", grouped(r.ResidueBytes), grouped(r.UnplacedBytes))
	}
	for _, u := range r.Unbound {
		text := "its pod is not known yet"
		if !u.Gone.IsZero() {
			text = "it has gone, and its pod is not known; lost ten minutes after " + u.Gone.UTC().Format("15:04:05 MST")
		}
		line("unbound", "%s: %s bytes wait and are on no series: %s", u.Interface, grouped(u.Bytes), text)
	}
	if lost := r.Lost["unbound"]; lost > 0 {
		line("lost", "%s bytes of interfaces that vanished before their pods were known, since podmeter was installed", grouped(lost))
	}
	for _, p := range r.HostNetwork {
		line("host network", "%s has no interface to compare with: the invariants alone are checked", p)
	}
	if len(r.NotMetered) > 0 {
		line("not metered", "%s: left out by --interfaces, or about to be attached", strings.Join(r.NotMetered, ", "))
	}
	writeLines(b, lines)
}

// Conclusion is the last line.
func (r *Report) Conclusion() string {
	switch r.Code {
	case CodeUnequal:
		return fmt.Sprintf("NOT EQUAL: %d of the above.", len(r.Faults()))
	case CodeUndecided:
		return "Nothing is unequal, but not all could be judged: " + r.undecided() + "."
	}
	if len(r.Rows) == 0 {
		return "Nothing is unequal, and nothing was there to be compared."
	}
	var all flows.Counters
	explained, names := 0, make(map[string]bool)
	for _, row := range r.Rows {
		all.Add(row.Podmeter)
		names[row.Interface] = true
		if row.Verdict == Explained {
			explained++
		}
	}
	text := "All equal"
	if explained > 0 {
		text = fmt.Sprintf("All equal or explained (%d)", explained)
	}
	return fmt.Sprintf("%s: %s bytes in %s packets on %d interfaces, in both directions.%s%s",
		text, grouped(all.Bytes), grouped(all.Packets), len(names), r.waiting(), r.unsaved())
}

// waiting says how much is on no series yet.
func (r *Report) waiting() string {
	var sum uint64
	for _, u := range r.Unbound {
		sum += u.Bytes
	}
	if sum == 0 {
		return ""
	}
	return fmt.Sprintf(" %s bytes wait for their pods, and are on no series yet.", grouped(sum))
}

// unsaved says that it could not be saved.
func (r *Report) unsaved() string {
	if r.CheckpointProblem == "" {
		return ""
	}
	return " The counters cannot be saved for a restart."
}

// Counters is bytes / packets.
func Counters(c flows.Counters) string { return grouped(c.Bytes) + " / " + grouped(c.Packets) }

// String is bytes / packets.
func (d Delta) String() string { return humanize.Comma(d.Bytes) + " / " + humanize.Comma(d.Packets) }

// grouped groups the digits of a number that may be past 2^63.
func grouped(n uint64) string {
	if n > 1<<63-1 {
		return strconv.FormatUint(n, 10)
	}
	return humanize.Comma(int64(n))
}
