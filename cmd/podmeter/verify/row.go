// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"cmp"

	"github.com/podmeter/podmeter/flows"
)

// Verdict is what came of one interface in one direction.
type Verdict string

// The verdicts.
const (
	// Equal: the interface's own counter is what is exported, and what passed before.
	Equal Verdict = "equal"
	// Explained: it is not, by exactly what the agent itself knows of.
	Explained Verdict = "explained"
	// Unequal: it is not, and nothing explains it.
	Unequal Verdict = "unequal"
	// Settling: what passed before the attachment is not known yet.
	Settling Verdict = "settling"
	// Moving: packets moved whenever it was looked at.
	Moving Verdict = "moving"
	// Unknown: one of both sides cannot be told.
	Unknown Verdict = "unknown"
)

// final reports whether another observation can add nothing.
func (v Verdict) final() bool { return v == Equal || v == Explained || v == Unknown }

// Row is one interface in one direction.
type Row struct {
	Interface string `json:"interface"`
	Index     int    `json:"index"`
	// Namespace and Pod are empty while it is unbound.
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	State     string `json:"state"`
	Direction string `json:"direction"`
	// Kernel is the interface's own counter. Before is the part of it that is no part of
	// Podmeter by intent: what passed before podmeter counted there, and what an earlier
	// attachment to the interface has accounted for.
	Kernel flows.Counters `json:"kernel"`
	Before flows.Counters `json:"before"`
	// Podmeter is what the series of the pod have of the interface.
	Podmeter flows.Counters `json:"podmeter"`
	// Predicted is by how much Kernel is more than Before and Podmeter together, as the
	// agent itself knows it; Difference is by how much it is.
	Predicted  Delta   `json:"predicted"`
	Difference Delta   `json:"difference"`
	Verdict    Verdict `json:"verdict"`
	// Why says what the verdict is for, where that is not plain.
	Why string `json:"why,omitempty"`
}

// Judge holds what an agent says of an interface against the kernel's counters of it.
// Both must be of one moment.
func (i *Interface) Judge(device Device, d flows.Direction) Row {
	row := Row{
		Interface: i.Name, Index: i.Index, Namespace: i.Pod.Namespace, Pod: i.Pod.Name, State: i.State, Direction: d.String(),
		Kernel: i.counted(device, d), Before: i.Uncounted(device, d), Podmeter: i.Exported[d],
		Predicted: i.Difference[d].plus(i.Waiting[d]),
	}
	explained := row.Before
	explained.Add(row.Podmeter)
	row.Difference = DeltaOf(row.Kernel, explained)
	row.Verdict, row.Why = i.verdict(&row, device, d)
	return row
}

func (i *Interface) verdict(row *Row, device Device, d flows.Direction) (Verdict, string) {
	bypassed := i.Bypassed != flows.Counters{} && d == flows.Receive
	switch {
	case i.State == stateSettling:
		return Settling, "what passed before the attachment is not known yet"
	case i.ExportedPartly:
		return Unknown, "an earlier build of podmeter metered it too, and did not record what it exported of it"
	case bypassed && !i.readsPodEnd(device):
		return Unknown, "packets went round it, and the pod's end of it cannot be read"
	case row.Difference != row.Predicted:
		return Unequal, cmp.Or(i.known(d), "nothing explains it: a bug, please report it")
	case i.State == stateUnknown:
		return Unknown, "equal, but packets may have gone round it that the kernel does not count"
	case !row.Difference.IsZero():
		return Explained, i.explain(d)
	}
	return Equal, ""
}

// known says what the agent knows of a difference that is another.
func (i *Interface) known(d flows.Direction) string {
	if i.Difference[d].IsZero() {
		return ""
	}
	return "not by what the agent knows of: a bug, please report it"
}

// explain says what a difference that the agent knows of comes from.
func (i *Interface) explain(d flows.Direction) string {
	text := ""
	if !i.Waiting[d].IsZero() {
		text = "it waits for its pod: on no series yet"
	}
	if i.Difference[d].IsZero() {
		return text
	}
	if text != "" {
		text += "; "
	}
	return text + causes(d, i.Difference[d])
}

// causes says what makes an interface count otherwise than podmeter: the table of the
// README.
func causes(d flows.Direction, by Delta) string {
	switch {
	case by.Packets == 0:
		return "the same packets, of other lengths: XDP at one end, or VLAN tags in the frame"
	case d == flows.Receive && by.Packets < 0:
		return "handed to the interface and dropped behind podmeter: a qdisc (tbf), the pod's MTU, a full backlog, another's program on egress, or redirected by it"
	case d == flows.Receive:
		return "cut to segments behind podmeter (TSO off at the host's end), XDP, or sent past TC (PACKET_QDISC_BYPASS, XDP_REDIRECT)"
	case by.Packets < 0:
		return "redirected to the interface's ingress by another's program (BPF_F_INGRESS): the pod has not sent it"
	}
	return "segments that podmeter saw merged (TSO off at the pod's end, GRO on at the host's), XDP, or a program that hid packets for a moment"
}

// moves is a row's last numbers when packets move on it.
func (r Row) moves() Row {
	r.Verdict, r.Why = Moving, "packets moved each time it was looked at"
	return r
}
