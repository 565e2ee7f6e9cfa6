// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/flows"
)

// writeStatus shows a status to a human; ages are as of now. Names are whatever their
// makers like: they are not to move the cursor nor to make lines, so the status' texts are
// made plain first.
func writeStatus(w io.Writer, s *agent.Status, now time.Time) error {
	makePlain(s)
	w = printableWriter{w}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, line := range [][2]string{
		{"agent", fmt.Sprintf("%s on %s, attach %s, pinned at %s, %s flows a set",
			s.Version, s.Node, s.AttachMode, s.PinPath, comma(s.Capacity))},
		{"identity", identityText(&s.Identity, now)},
		{"drain", drainText(&s.Drain, now)},
		{"conservation error", errorText(s.ConservationErrorBytes)},
		{"not attributed", fmt.Sprintf("residue %s, unplaced %s, unbound %s, lost %s",
			size(s.ResidueBytes), size(s.UnplacedBytes), size(s.UnboundBytes), size(s.LostBytes))},
	} {
		fmt.Fprintf(table, "%s\t%s\n", line[0], line[1])
	}
	if s.CheckpointProblem != "" {
		fmt.Fprintf(table, "checkpoint\tnot written, a restart would not know what came since: %s\n", s.CheckpointProblem)
	}
	for i := range s.GeoIP {
		fmt.Fprintf(table, "geoip\t%s\n", geoIPText(&s.GeoIP[i], now))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return errors.Join(writeInterfaces(w, s.Interfaces), writeWaiting(w, s.Waiting, now), writeYields(w, s.Yielded),
		writeUnpopulated(w, s.Unpopulated, now), writeListeners(w, s.Interfaces),
		writeUplinks(w, s.Uplinks))
}

func identityText(i *agent.IdentityStatus, now time.Time) string {
	text := i.Source
	if !i.Synced {
		text += ", not synced"
	}
	if !i.LastUpdate.IsZero() {
		text += ", heard of " + ago(i.LastUpdate, now)
	}
	var objects []string
	for _, kind := range slices.Sorted(maps.Keys(i.Objects)) {
		objects = append(objects, fmt.Sprintf("%s %s", humanize.Comma(int64(i.Objects[kind])), kind))
	}
	if len(objects) > 0 {
		text += ": " + strings.Join(objects, ", ")
	}
	return text + problem(i.Problem)
}

func drainText(d *agent.DrainStatus, now time.Time) string {
	every := "every " + seconds(d.IntervalSeconds).String()
	if d.Last.IsZero() {
		return every + ", none yet" + problem(d.Problem)
	}
	return fmt.Sprintf("%s, last %s in %v, %s so far, epoch %d%s", every, ago(d.Last, now),
		seconds(d.DurationSeconds).Round(10*time.Microsecond), comma(d.Count), d.Epoch, problem(d.Problem))
}

func errorText(bytes uint64) string {
	if bytes == 0 {
		return "0 B"
	}
	return fmt.Sprintf("%s bytes: A BUG, please report it", comma(bytes))
}

func geoIPText(g *agent.GeoIPStatus, now time.Time) string {
	text := g.Path
	if g.Type != "" {
		text += ", " + g.Type
	}
	if !g.Built.IsZero() {
		text += fmt.Sprintf(", %d days old", int(now.Sub(g.Built).Hours()/24))
	}
	if len(g.Fields) > 0 {
		text += ": " + strings.Join(g.Fields, ", ")
	}
	return text + problem(g.Problem)
}

func problem(text string) string {
	if text == "" {
		return ""
	}
	return "; PROBLEM: " + text
}

// writeInterfaces lists them by pod, those without one first.
func writeInterfaces(w io.Writer, interfaces []agent.InterfaceStatus) error {
	if len(interfaces) == 0 {
		_, err := fmt.Fprintln(w, "\nno pod's interface is metered: see --interfaces of 'podmeter agent --help'")
		return err
	}
	sorted := byPod(interfaces)
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "POD\tINTERFACE\tATTACHMENT\tSTATE\tTRANSMIT\tPACKETS\tRECEIVE\tPACKETS\tDIFFERENCE\tBEFORE")
	for i := range sorted {
		fmt.Fprintln(table, strings.Join(interfaceCells(&sorted[i]), "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return writeStates(w, sorted)
}

func byPod(interfaces []agent.InterfaceStatus) []agent.InterfaceStatus {
	return slices.SortedFunc(slices.Values(interfaces), func(a, b agent.InterfaceStatus) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Name, b.Name))
	})
}

// writeListeners lists the ports of pods, if they are known: once for a pod that has
// several interfaces.
func writeListeners(w io.Writer, interfaces []agent.InterfaceStatus) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	head, last := "\nPOD\tPORT\tPROTOCOL\tCONTAINER\tCOMMAND\n", ""
	for _, i := range byPod(interfaces) {
		pod := podText(&i)
		if pod == last {
			continue
		}
		last = pod
		for _, l := range i.Listeners {
			fmt.Fprintf(table, "%s%s\t%s\t%s\t%s\t%s\n", head, pod, l.Address, l.Protocol, cmp.Or(l.Container, "-"), cmp.Or(l.Command, "-"))
			head = ""
		}
	}
	return table.Flush()
}

// writeUplinks lists them by name, if there are any.
func writeUplinks(w io.Writer, uplinks []agent.UplinkStatus) error {
	if len(uplinks) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "UPLINK\tATTACHMENT\tSTATE\tTRANSMIT\tPACKETS\tRECEIVE\tPACKETS")
	for _, u := range uplinks {
		fmt.Fprintf(table, "%s (%d)\t%s\t%s\t%s\t%s\t%s\t%s\n", u.Name, u.Index, u.Attachment, u.State,
			size(u.Transmit.Bytes), comma(u.Transmit.Packets), size(u.Receive.Bytes), comma(u.Receive.Packets))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, u := range uplinks {
		if u.Problem != "" {
			fmt.Fprintf(w, "%s%s\n", u.Name, problem(u.Problem))
		}
	}
	return nil
}

// writeWaiting lists what waits for a pod, if anything does.
func writeWaiting(w io.Writer, waiting []agent.WaitingStatus, now time.Time) error {
	if len(waiting) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "\nUNBOUND\tBYTES\tSINCE\tWAITS FOR A POD OF THIS NODE WITH THE ADDRESS")
	for i := range waiting {
		u := &waiting[i]
		name := fmt.Sprintf("%s (%d)", u.Name, u.Index)
		if !u.Gone.IsZero() {
			name = fmt.Sprintf("%s, gone %s", u.Name, ago(u.Gone, now))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", name, size(u.Bytes), ago(u.Since, now),
			cmp.Or(strings.Join(u.Needs, ", "), "no address of it is known"))
	}
	return table.Flush()
}

func podText(i *agent.InterfaceStatus) string {
	switch {
	case i.Pod == "":
		return "(unbound)"
	case i.Namespace != "":
		return i.Namespace + "/" + i.Pod
	}
	return i.Pod
}

func interfaceCells(i *agent.InterfaceStatus) []string {
	return []string{
		podText(i), fmt.Sprintf("%s (%d)", i.Name, i.Index), i.Attachment, i.State,
		size(i.Transmit.Bytes), comma(i.Transmit.Packets), size(i.Receive.Bytes), comma(i.Receive.Packets),
		fmt.Sprintf("%d/%d", i.DifferencePackets[flows.Transmit], i.DifferencePackets[flows.Receive]),
		beforeText(i),
	}
}

func beforeText(i *agent.InterfaceStatus) string {
	text := size(i.Before[flows.Transmit].Bytes) + "/" + size(i.Before[flows.Receive].Bytes)
	if i.Seeded {
		text += " counted"
	}
	return text
}

func ago(t, now time.Time) string {
	return max(0, now.Sub(t)).Round(100*time.Millisecond).String() + " ago"
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func size(bytes uint64) string { return humanize.IBytes(bytes) }

// comma groups the digits of a number that may be past 2^63.
func comma(n uint64) string {
	if n > 1<<63-1 {
		return strconv.FormatUint(n, 10)
	}
	return humanize.Comma(int64(n))
}
