// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/flows"
)

func counters(bytes, packets uint64) flows.Counters {
	return flows.Counters{Bytes: bytes, Packets: packets}
}

// judgeCase is an interface that received 1,000 bytes in 10 packets since counting
// began, changed in one way, and what is to be said of it in that direction.
type judgeCase struct {
	name   string
	change func(*Interface, *Device)
	want   Row // Interface, Index, Pod, Direction and State are filled in
	why    string
}

func judgeCases() []judgeCase {
	row := func(kernel, before, podmeter flows.Counters, predicted, difference Delta, v Verdict) Row {
		return Row{Kernel: kernel, Before: before, Podmeter: podmeter, Predicted: predicted, Difference: difference, Verdict: v}
	}
	all, none := counters(1000, 10), flows.Counters{}
	return []judgeCase{
		{name: "all is exported", change: func(*Interface, *Device) {},
			want: row(all, none, all, Delta{}, Delta{}, Equal)},
		{name: "something passed before", change: func(i *Interface, d *Device) {
			i.Before[flows.Receive] = counters(300, 3)
			d.Own[flows.Receive].Add(counters(300, 3))
		}, want: row(counters(1300, 13), counters(300, 3), all, Delta{}, Delta{}, Equal)},
		{name: "something passed before, and was seeded", change: func(i *Interface, d *Device) {
			i.Before[flows.Receive], i.Seeded = counters(300, 3), true
			i.Exported[flows.Receive].Add(counters(300, 3))
			d.Own[flows.Receive].Add(counters(300, 3))
		}, want: row(counters(1300, 13), none, counters(1300, 13), Delta{}, Delta{}, Equal)},
		{name: "said to be seeded and is not", change: func(i *Interface, d *Device) {
			i.Before[flows.Receive], i.Seeded = counters(300, 3), true
			d.Own[flows.Receive].Add(counters(300, 3))
		}, want: row(counters(1300, 13), none, all, Delta{}, Delta{300, 3}, Unequal), why: "a bug"},
		{name: "attached again", change: func(i *Interface, d *Device) {
			i.Earlier[flows.Receive], i.Seeded = counters(5000, 50), true
			d.Own[flows.Receive].Add(counters(5000, 50))
		}, want: row(counters(6000, 60), counters(5000, 50), all, Delta{}, Delta{}, Equal)},
		{name: "a byte too many", change: func(i *Interface, _ *Device) { i.Exported[flows.Receive].Bytes++ },
			want: row(all, none, counters(1001, 10), Delta{}, Delta{-1, 0}, Unequal), why: "a bug"},
		{name: "a packet too few", change: func(i *Interface, _ *Device) { i.Exported[flows.Receive].Packets-- },
			want: row(all, none, counters(1000, 9), Delta{}, Delta{0, 1}, Unequal), why: "a bug"},
		{name: "hidden, and exported", change: func(i *Interface, d *Device) {
			i.State, i.Hidden[flows.Receive] = "shadowed", counters(200, 2)
			i.Exported[flows.Receive].Add(counters(200, 2))
			d.Own[flows.Receive].Add(counters(200, 2))
		}, want: row(counters(1200, 12), none, counters(1200, 12), Delta{}, Delta{}, Equal)},
		{name: "partial", change: func(i *Interface, _ *Device) { i.State = "partial" },
			want: row(all, none, all, Delta{}, Delta{}, Equal)},
		{name: "settling", change: func(i *Interface, _ *Device) { i.State, i.Exported = "settling", Pair{} },
			want: row(all, none, none, Delta{}, Delta{1000, 10}, Settling), why: "not known yet"},
		{name: "exported in part by an earlier build", change: func(i *Interface, _ *Device) {
			i.ExportedPartly, i.Exported[flows.Receive] = true, counters(100, 1)
		}, want: row(all, none, counters(100, 1), Delta{}, Delta{900, 9}, Unknown), why: "earlier build"},
		{name: "it may be bypassed uncounted", change: func(i *Interface, _ *Device) { i.State = "unknown" },
			want: row(all, none, all, Delta{}, Delta{}, Unknown), why: "does not count"},
		{name: "it may be bypassed, and is unequal", change: func(i *Interface, _ *Device) {
			i.State = "unknown"
			i.Exported[flows.Receive].Bytes--
		}, want: row(all, none, counters(999, 10), Delta{}, Delta{1, 0}, Unequal), why: "a bug"},
	}
}

func bypassCases() []judgeCase {
	all := counters(1000, 10)
	bypassed := func(i *Interface, d *Device) {
		i.State, i.PodEnd, i.Bypassed, i.BypassedBefore = "bypassed", true, counters(400, 4), counters(70, 7)
		i.Exported[flows.Receive].Add(counters(400, 4))
		d.HasPodEnd, d.PodEnd = true, counters(1470, 21)
	}
	return []judgeCase{
		{name: "bypassed", change: bypassed,
			want: Row{Kernel: counters(1470, 21), Before: counters(70, 7), Podmeter: counters(1400, 14), Verdict: Equal}},
		{name: "bypassed, and the agent has not seen all", change: func(i *Interface, d *Device) {
			bypassed(i, d)
			d.PodEnd.Add(counters(60, 1))
		}, want: Row{Kernel: counters(1530, 22), Before: counters(70, 7), Podmeter: counters(1400, 14),
			Difference: Delta{60, 1}, Verdict: Unequal}, why: "a bug"},
		{name: "bypassed, and we cannot read the pod's end", change: func(i *Interface, d *Device) {
			bypassed(i, d)
			d.HasPodEnd, d.PodEnd = false, flows.Counters{}
		}, want: Row{Kernel: all, Podmeter: counters(1400, 14), Difference: Delta{-400, -4}, Verdict: Unknown}, why: "cannot be read"},
		{name: "not bypassed, by the pod's end", change: func(i *Interface, d *Device) {
			i.PodEnd, d.HasPodEnd, d.PodEnd = true, true, all
		}, want: Row{Kernel: all, Podmeter: all, Verdict: Equal}},
		{name: "bypassed and nobody noticed", change: func(i *Interface, d *Device) {
			i.PodEnd, d.HasPodEnd, d.PodEnd = true, true, counters(1100, 11)
		}, want: Row{Kernel: counters(1100, 11), Podmeter: all, Difference: Delta{100, 1}, Verdict: Unequal}, why: "a bug"},
		{name: "the pod's end is none of the agent's", change: func(_ *Interface, d *Device) {
			d.HasPodEnd, d.PodEnd = true, counters(9999, 99)
		}, want: Row{Kernel: all, Podmeter: all, Verdict: Equal}},
	}
}

func differenceCases() []judgeCase {
	differs := func(exported flows.Counters, by Delta) func(*Interface, *Device) {
		return func(i *Interface, _ *Device) {
			i.State, i.Exported[flows.Receive], i.Difference[flows.Receive] = "differs", exported, by
		}
	}
	all := counters(1000, 10)
	return []judgeCase{
		{name: "segments", change: differs(counters(340, 1), Delta{660, 9}), why: "TSO off",
			want: Row{Kernel: all, Podmeter: counters(340, 1), Predicted: Delta{660, 9}, Difference: Delta{660, 9}, Verdict: Explained}},
		{name: "drops", change: differs(counters(1500, 15), Delta{-500, -5}), why: "dropped behind podmeter",
			want: Row{Kernel: all, Podmeter: counters(1500, 15), Predicted: Delta{-500, -5}, Difference: Delta{-500, -5}, Verdict: Explained}},
		{name: "other lengths", change: differs(counters(960, 10), Delta{40, 0}), why: "of other lengths",
			want: Row{Kernel: all, Podmeter: counters(960, 10), Predicted: Delta{40, 0}, Difference: Delta{40, 0}, Verdict: Explained}},
		{name: "a byte beyond the prediction", change: differs(counters(339, 1), Delta{660, 9}), why: "not by what the agent knows of",
			want: Row{Kernel: all, Podmeter: counters(339, 1), Predicted: Delta{660, 9}, Difference: Delta{661, 9}, Verdict: Unequal}},
		{name: "a prediction of nothing", change: differs(all, Delta{660, 9}), why: "not by what the agent knows of",
			want: Row{Kernel: all, Podmeter: all, Predicted: Delta{660, 9}, Verdict: Unequal}},
		{name: "unbound", change: func(i *Interface, _ *Device) {
			i.Pod, i.Exported, i.Waiting = Pod{}, Pair{}, i.Exported
		}, why: "waits for its pod",
			want: Row{Kernel: all, Predicted: Delta{1000, 10}, Difference: Delta{1000, 10}, Verdict: Explained}},
		{name: "unbound, and a byte is missing", change: func(i *Interface, _ *Device) {
			i.Pod, i.Exported, i.Waiting = Pod{}, Pair{}, i.Exported
			i.Waiting[flows.Receive].Bytes--
		}, why: "a bug",
			want: Row{Kernel: all, Predicted: Delta{999, 10}, Difference: Delta{1000, 10}, Verdict: Unequal}},
		{name: "unbound, with drops", change: func(i *Interface, _ *Device) {
			i.Pod, i.Exported, i.Waiting[flows.Receive] = Pod{}, Pair{}, counters(1500, 15)
			i.Difference[flows.Receive] = Delta{-500, -5}
		}, why: "waits for its pod: on no series yet; handed to",
			want: Row{Kernel: all, Predicted: Delta{1000, 10}, Difference: Delta{1000, 10}, Verdict: Explained}},
	}
}

func TestJudge(t *testing.T) {
	for _, c := range append(append(judgeCases(), bypassCases()...), differenceCases()...) {
		t.Run(c.name, func(t *testing.T) {
			i := Interface{Name: "veth1", Index: 7, Pod: Pod{"shop", "web"}, State: "attached"}
			i.Exported[flows.Receive] = counters(1000, 10)
			device := Device{Name: "veth1", Own: i.Exported}
			c.change(&i, &device)
			got := i.Judge(device, flows.Receive)
			want := c.want
			want.Interface, want.Index, want.State, want.Direction = "veth1", 7, i.State, "receive"
			want.Namespace, want.Pod = i.Pod.Namespace, i.Pod.Name
			if !strings.Contains(got.Why, c.why) || (got.Why == "") != (c.why == "") {
				t.Errorf("why: got %q, want %q in it", got.Why, c.why)
			}
			got.Why = ""
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			// The other direction has seen nothing, and is equal where it can be told.
			if other := i.Judge(device, flows.Transmit); other.Verdict == Unequal || !other.Difference.IsZero() {
				t.Errorf("transmit: got %+v, want no difference", other)
			}
		})
	}
}

// Each cause of the README's table has a text of its own.
func TestCausesAreTold(t *testing.T) {
	texts := make(map[string]bool)
	for _, d := range []flows.Direction{flows.Transmit, flows.Receive} {
		for _, packets := range []int64{-1, 0, 1} {
			texts[causes(d, Delta{5, packets})] = true
		}
	}
	if len(texts) != 5 { // that of other lengths is of both directions
		t.Errorf("got %d texts, want 5: %v", len(texts), texts)
	}
	for _, test := range []struct {
		direction flows.Direction
		packets   int64
		want      string
	}{
		{flows.Transmit, -1, "BPF_F_INGRESS"}, {flows.Receive, 1, "XDP_REDIRECT"}, {flows.Receive, -1, "another's program on egress"},
	} {
		if got := causes(test.direction, Delta{5, test.packets}); !strings.Contains(got, test.want) {
			t.Errorf("%s, %d packets: got %q, want %q in it", test.direction, test.packets, got, test.want)
		}
	}
}
