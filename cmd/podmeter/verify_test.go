// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/cmd/podmeter/verify"
	"github.com/podmeter/podmeter/datapath"
	"github.com/podmeter/podmeter/flows"
)

// What is wrong with the command line is told with 2, an agent that does not answer with
// 1, whichever way its socket is named.
func TestVerifyExitCodes(t *testing.T) {
	mute := serve(t, http.NotFoundHandler())
	for _, test := range []struct {
		name    string
		environ []string
		args    []string
		code    int
		stderr  string
	}{
		{"an argument", nil, []string{"veth0"}, 2, `podmeter: "veth0" is too much`},
		{"unknown flag", nil, []string{"--wach"}, 2, "podmeter: unknown flag: --wach"},
		{"unknown output", nil, []string{"-o", "text"}, 2, `podmeter: --output "text": table or json is expected`},
		{"no such file", nil, []string{"--config", "/nowhere.yaml"}, 2, "podmeter: read --config: open /nowhere.yaml"},
		{"no agent", nil, []string{"--socket", "/nowhere/agent.sock"}, 1, "podmeter: no agent answers at /nowhere/agent.sock"},
		{"no agent, by variable", []string{"PODMETER_SOCKET=/nowhere/by.variable"}, nil, 1, "podmeter: no agent answers at /nowhere/by.variable"},
		{"no agent, for JSON", []string{"PODMETER_SOCKET=/nowhere/x"}, []string{"-o", "json"}, 1, "podmeter: no agent answers at"},
		{"an agent of an earlier build", nil, []string{"--socket", mute}, 1,
			"podmeter: ask the agent at " + mute + " for a drain: its build cannot do that yet"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := new(recorder).run(t, test.environ, append([]string{"verify"}, test.args...)...)
			if got.code != test.code || !strings.HasPrefix(got.stderr, test.stderr) || got.stdout != "" {
				t.Errorf("got code %d, %q and %q, want %d and %q", got.code, got.stdout, got.stderr, test.code, test.stderr)
			}
		})
	}
}

// The help names each exit code, each verdict and each column.
func TestVerifyHelp(t *testing.T) {
	help := new(recorder).run(t, nil, "verify", "--help").stdout
	for _, verdict := range []verify.Verdict{verify.Equal, verify.Explained, verify.Unequal, verify.Settling, verify.Moving, verify.Unknown} {
		if !strings.Contains(help, "  "+string(verdict)+" ") {
			t.Errorf("the help does not explain %q", verdict)
		}
	}
	for _, word := range []string{"KERNEL", "BEFORE", "PODMETER", "DIFFERENCE", "PREDICTED", "VERDICT", "Exit codes: 0", "; 1 ", "; 2 ", "; 3 "} {
		if !strings.Contains(help, word) {
			t.Errorf("the help does not have %q", word)
		}
	}
	completed := new(recorder).run(t, nil, "__complete", "verify", "--output", "").stdout
	if !strings.HasPrefix(completed, "table\njson\n") {
		t.Errorf("completion of --output: got %q, want table and json", completed)
	}
}

// rounds returns one error after the other, and ends the context with the last.
func rounds(t *testing.T, results ...error) (ctx context.Context, round func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, func() error {
		result := results[0]
		if results = results[1:]; len(results) == 0 {
			cancel()
			result = errors.Join(result, context.Canceled)
		}
		return result
	}
}

// A watch ends with the worst of its rounds, without the one that was broken off, and
// each is told.
func TestVerifyWatch(t *testing.T) {
	moving := &verdictError{verify.CodeUndecided, "moving: veth1"}
	unequal := &verdictError{verify.CodeUnequal, "NOT EQUAL: 1 of the above."}
	away := errors.New("no agent answers")
	for _, test := range []struct {
		name    string
		results []error
		want    error
		told    string
	}{
		{"all equal", []error{nil, nil, nil}, nil, ""},
		{"one could not be judged", []error{nil, moving, nil, nil}, moving, "podmeter: moving: veth1\n"},
		{"one was unequal", []error{moving, unequal, moving, nil}, unequal,
			"podmeter: moving: veth1\npodmeter: NOT EQUAL: 1 of the above.\npodmeter: moving: veth1\n"},
		{"the agent was away", []error{moving, away, moving, nil}, away,
			"podmeter: moving: veth1\npodmeter: no agent answers\npodmeter: moving: veth1\n"},
		{"the last was broken off", []error{nil, unequal}, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, round := rounds(t, test.results...)
			var stderr bytes.Buffer
			c := &commands{verifyPause: time.Millisecond}
			if got := c.watchVerify(ctx, &stderr, round); !errors.Is(got, test.want) || stderr.String() != test.told {
				t.Errorf("got %v and %q, want %v and %q", got, &stderr, test.want, test.told)
			}
		})
	}
}

// All that an agent's status says of an interface reaches the arithmetic.
func TestVerifiedStatus(t *testing.T) {
	at := noon.Add(-time.Hour)
	pair := func(n uint64) [flows.Directions]flows.Counters {
		return [flows.Directions]flows.Counters{{Bytes: n, Packets: n + 1}, {Bytes: n + 2, Packets: n + 3}}
	}
	status := &agent.Status{
		Node: "node-a",
		Interfaces: []agent.InterfaceStatus{
			{
				Name: "veth1", Index: 7, Namespace: "shop", Pod: "web\xff", State: "differs", Since: at, Attachment: "tcx",
				Before: pair(10), Seeded: true, Earlier: pair(20), Hidden: pair(30), Bypassed: pair(40)[0], BypassedBefore: pair(50)[0],
				PodEnd: true, DifferencePackets: [flows.Directions]int64{-1, 2}, DifferenceBytes: [flows.Directions]int64{-3, 4},
				ExportedStatus: agent.ExportedStatus{Exported: pair(60), Waiting: pair(70), ExportedPartly: true},
			},
			{Name: "pod1", Index: 1<<31 + 5, Namespace: "kube-system", Pod: "proxy", Attachment: string(datapath.AttachCgroup),
				ExportedStatus: agent.ExportedStatus{Exported: pair(80), Waiting: pair(90)}},
			{Name: "veth2", Index: 8, Attachment: "netlink"},
		},
		Earlier: []agent.EarlierStatus{{Namespace: "shop", Pod: "a\xff", Exported: pair(1)}, {Namespace: "shop", Pod: "a\xff\xff", Exported: pair(2)}},
		Uplinks: []agent.UplinkStatus{{Name: "eth0", Index: 2}},
		Orphans: []agent.OrphanStatus{{Name: "veth3", Gone: at, Waiting: pair(100)}},
	}
	want := &verify.Agent{
		Node: "node-a",
		Interfaces: []verify.Interface{
			{
				Name: "veth1", Index: 7, Pod: verify.Pod{Namespace: "shop", Name: "web\ufffd"}, State: "differs", Since: at,
				Exported: pair(60), Waiting: pair(70), ExportedPartly: true, Before: pair(10), Earlier: pair(20), Seeded: true,
				Difference: [flows.Directions]verify.Delta{{Bytes: -3, Packets: -1}, {Bytes: 4, Packets: 2}},
				Hidden:     pair(30), Bypassed: pair(40)[0], BypassedBefore: pair(50)[0], PodEnd: true,
			},
			{Name: "veth2", Index: 8},
		},
		HostPods: []verify.HostPod{{Pod: verify.Pod{Namespace: "kube-system", Name: "proxy"}, Cgroup: "pod1", Exported: pair(80), Waiting: pair(90)}},
		Earlier: map[verify.Pod]verify.Pair{{Namespace: "shop", Name: "a\ufffd"}: {
			{Bytes: 3, Packets: 5}, {Bytes: 7, Packets: 9},
		}},
		Uplinks: []int{2},
		Orphans: []verify.Orphan{{Name: "veth3", Gone: at, Waiting: pair(100)}},
	}
	if diff := cmp.Diff(want, verified(status)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// An agent that has too many drains to do is asked again; any other refusal is told.
func TestClientDrain(t *testing.T) {
	for _, test := range []struct {
		name  string
		codes []int
		want  string // in the error, empty for none
	}{
		{"at once", []int{200}, ""},
		{"busy at first", []int{429, 429, 200}, ""},
		{"not yet", []int{503}, "answer 503"},
	} {
		t.Run(test.name, func(t *testing.T) {
			asked := 0
			mux := http.NewServeMux()
			mux.HandleFunc("POST "+agent.DrainPath, func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, fmt.Sprint("answer ", test.codes[asked]), test.codes[asked])
				asked++
			})
			client := newClient(serve(t, mux))
			defer client.close()
			err := client.drain(t.Context())
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) || asked != len(test.codes) {
				t.Errorf("got %v after %d answers, want %q in it after %d", err, asked, test.want, len(test.codes))
			}
		})
	}
}
