// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// mostEdges is how many edges are shown: a screen of them.
const mostEdges = 20

// traffic is what an agent's page shows of who talks to whom. Bytes are indexed by
// [flows.Direction].
type traffic struct {
	Node  string    `json:"node"`
	Total [2]uint64 `json:"total"` // of the pods
	Edges struct {
		Rows   []edge `json:"rows"`
		Others int    `json:"others"` // rows that are not there
		Rest   edge   `json:"rest"`   // the bytes of these
	} `json:"edges"`
	Books struct {
		Difference uint64 `json:"difference"` // between pods and their flows, must be 0
	} `json:"books"`
}

// edge is one row: a workload of this node and its peer.
type edge struct {
	Local    party     `json:"local"`
	Peer     party     `json:"peer"`
	Locality string    `json:"locality"`
	Total    [2]uint64 `json:"total"`
}

// party is one end of an edge.
type party struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

func (e *edge) bytes() uint64 { return e.Total[0] + e.Total[1] }

// String names a party as the labels do, with its kind where it is no pod.
func (p party) String() string {
	name := p.Name
	if p.Namespace != "" && name != "" {
		name = p.Namespace + "/" + name
	}
	switch {
	case name == "":
		return p.Kind
	case p.Kind == "pod" && (p.Namespace != "" || name != "other"): // those that a limit folded are pod other
		return name
	}
	return p.Kind + " " + name
}

// writeTraffic shows who talks to whom to a human, those that moved most bytes first.
func writeTraffic(w io.Writer, t *traffic) error {
	w = printableWriter{w}
	t.Edges.Rows = slices.DeleteFunc(t.Edges.Rows, func(e edge) bool { return e.bytes() == 0 }) // of a connection that has just begun
	if len(t.Edges.Rows) == 0 {
		_, err := fmt.Fprintln(w, "no traffic of a pod was counted yet")
		return err
	}
	rows, others, rest := mostOf(t)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "WORKLOAD\tPEER\tLOCALITY\tSENT\tRECEIVED")
	for _, e := range rows {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", e.Local, e.Peer, e.Locality, size(e.Total[0]), size(e.Total[1]))
	}
	if others > 0 {
		fmt.Fprintf(table, "%d more\t\t\t%s\t%s\n", others, size(rest[0]), size(rest[1]))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\npods on %s: %s sent, %s received; %s\n", t.Node, size(t.Total[0]), size(t.Total[1]), booksText(t.Books.Difference))
	return err
}

// mostOf returns the rows with most bytes, and how many others there are with what sum.
func mostOf(t *traffic) (rows []edge, others int, rest [2]uint64) {
	rows = slices.SortedFunc(slices.Values(t.Edges.Rows), func(a, b edge) int {
		return cmp.Or(cmp.Compare(b.bytes(), a.bytes()), strings.Compare(a.Local.String()+a.Peer.String(), b.Local.String()+b.Peer.String()))
	})
	others, rest = t.Edges.Others, t.Edges.Rest.Total
	for len(rows) > mostEdges {
		last := rows[len(rows)-1]
		rows = rows[:len(rows)-1]
		others++
		for d := range rest {
			rest[d] += last.Total[d]
		}
	}
	return rows, others, rest
}

func booksText(difference uint64) string {
	if difference == 0 {
		return "every byte is on the row of a flow"
	}
	return fmt.Sprintf("%s bytes are not on the rows of flows: A BUG, please report it", comma(difference))
}
