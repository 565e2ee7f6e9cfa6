// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/datapath"
	"github.com/podmeter/podmeter/flows"
)

// serve answers on a socket as an agent does, until the test ends.
func serve(t *testing.T, handler http.Handler) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return socket
}

// sample is the status of an agent that has seen something of everything.
func sample() *agent.Status {
	return &agent.Status{
		Version: "v0.1.0", Node: "node-a", AttachMode: "auto", PinPath: "/sys/fs/bpf/podmeter", Capacity: 131072,
		Identity: agent.IdentityStatus{
			Source: "kubernetes", Synced: true, LastUpdate: noon.Add(-3 * time.Second),
			Objects: map[string]int{"pods": 1234, "nodes": 5}, Problem: "watch pods: connection refused",
		},
		Drain: agent.DrainStatus{
			IntervalSeconds: 5, Last: noon.Add(-1500 * time.Millisecond), DurationSeconds: 0.01234567, Count: 4321, Epoch: 4322,
		},
		ResidueBytes: 1 << 20, UnplacedBytes: 0, LostBytes: 1, UnboundBytes: 2048,
		GeoIP: []agent.GeoIPStatus{
			{Path: "/geo/city.mmdb", Type: "GeoLite2-City", Built: noon.AddDate(0, 0, -8), Fields: []string{"country", "city"}},
			{Path: "/geo/asn.mmdb", Problem: "the file is empty"},
		},
		Interfaces: []agent.InterfaceStatus{
			{
				Name: "veth2", Index: 12, Namespace: "shop", Pod: "web-1", Attachment: "tcx", State: "attached",
				Transmit: flows.Counters{Bytes: 3 << 20, Packets: 12345}, Receive: flows.Counters{Bytes: 640, Packets: 10},
				Listeners: []agent.ListenerStatus{
					{Protocol: "tcp", Address: "[::]:80", Container: "front", Command: "nginx"},
					{Protocol: "udp", Address: "0.0.0.0:5353"},
				},
			},
			{
				Name: "veth5", Index: 15, Namespace: "shop", Pod: "web-1", Attachment: "tcx", State: "attached",
				Listeners: []agent.ListenerStatus{{Protocol: "tcp", Address: "[::]:80", Container: "front", Command: "nginx"}},
			},
			{Name: "veth1", Index: 11, Pod: "veth1", Attachment: "netlink", State: "settling"},
			{
				Name: "veth0", Index: 10, Attachment: "tcx", State: "differs", Seeded: true,
				Before:            [flows.Directions]flows.Counters{{Bytes: 100, Packets: 1}, {Bytes: 200, Packets: 2}},
				DifferencePackets: [flows.Directions]int64{3, -4},
			},
			{
				Name: "veth3", Index: 13, Namespace: "shop", Pod: "web-2", Attachment: "tcx", State: "shadowed",
				Ahead:  [flows.Directions][]string{{"TCX program 7 (link 3)", "TCX program 8"}, nil},
				Hidden: [flows.Directions]flows.Counters{{Bytes: 4096, Packets: 3}},
			},
			{Name: "veth4", Index: 14, Pod: "veth4", Attachment: "netlink", State: "bypassed", Bypassed: flows.Counters{Bytes: 512, Packets: 1}},
		},
		Waiting: []agent.WaitingStatus{
			{Name: "veth0", Index: 10, Since: noon.Add(-time.Minute), Bytes: 1 << 20, Needs: []string{"10.0.0.9", "fd00::9"}},
			{Name: "veth9", Index: 19, Since: noon.Add(-time.Hour), Gone: noon.Add(-2 * time.Minute), Bytes: 60},
		},
		Yielded: []agent.YieldStatus{
			{Programs: "sockets", Cgroup: "/sys/fs/cgroup", Foreign: "program 7 (CGroupInet4Connect) on /sys/fs/cgroup"},
			{Programs: "host_pods", Namespace: "kube-system", Pod: "proxy", Cgroup: "/sys/fs/cgroup/a", Foreign: "program 8 on /sys/fs/cgroup"},
			{Programs: "host_pods", Cgroup: "/sys/fs/cgroup/b", Foreign: "program 8 on /sys/fs/cgroup"},
		},
		Unpopulated: []agent.UnpopulatedStatus{
			{Namespace: "shop", Pod: "web-1", Cgroup: "/sys/fs/cgroup/kubepods/pod1", Since: noon.Add(-time.Minute)},
			{Namespace: "kube-system", Pod: "proxy", HostNetwork: true, Cgroup: "/sys/fs/cgroup/kubepods/pod2", Since: noon.Add(-time.Hour)},
		},
	}
}

const sampleText = `agent               v0.1.0 on node-a, attach auto, pinned at /sys/fs/bpf/podmeter, 131,072 flows a set
identity            kubernetes, heard of 3s ago: 5 nodes, 1,234 pods; PROBLEM: watch pods: connection refused
drain               every 5s, last 1.5s ago in 12.35ms, 4,321 so far, epoch 4322
conservation error  0 B
not attributed      residue 1.0 MiB, unplaced 0 B, unbound 2.0 KiB, lost 1 B
geoip               /geo/city.mmdb, GeoLite2-City, 8 days old: country, city
geoip               /geo/asn.mmdb; PROBLEM: the file is empty

POD         INTERFACE   ATTACHMENT  STATE     TRANSMIT  PACKETS  RECEIVE  PACKETS  DIFFERENCE  BEFORE
(unbound)   veth0 (10)  tcx         differs   0 B       0        0 B      0        3/-4        100 B/200 B counted
veth1       veth1 (11)  netlink     settling  0 B       0        0 B      0        0/0         0 B/0 B
veth4       veth4 (14)  netlink     bypassed  0 B       0        0 B      0        0/0         0 B/0 B
shop/web-1  veth2 (12)  tcx         attached  3.0 MiB   12,345   640 B    10       0/0         0 B/0 B
shop/web-1  veth5 (15)  tcx         attached  0 B       0        0 B      0        0/0         0 B/0 B
shop/web-2  veth3 (13)  tcx         shadowed  0 B       0        0 B      0        0/0         0 B/0 B

settling  what passed before is not yet known: wait
shadowed  a program before ours ends the chain: what it hides is exported as unattributed; attach it after ours, or let it return TC_ACT_UNSPEC
bypassed  packets are redirected to the pod round its interface: exported as unattributed; switch bpf_redirect_peer off to see their flows
differs   the interface counts other packets than podmeter: offloads, XDP, a qdisc or program behind ours that drops or redirects, a program that redirects to the interface, or frames cut within a VLAN tag: see the README's questions
veth4     receive round it so far: 512 B
veth3     transmit comes after TCX program 7 (link 3), TCX program 8, hidden so far: 4.0 KiB

UNBOUND               BYTES    SINCE       WAITS FOR A POD OF THIS NODE WITH THE ADDRESS
veth0 (10)            1.0 MiB  1m0s ago    10.0.0.9, fd00::9
veth9, gone 2m0s ago  60 B     1h0m0s ago  no address of it is known

NOT METERED        AS PODMETER'S PROGRAMS WOULD SWITCH OFF A FOREIGN ONE, WHICH BPF_F_ALLOW_MULTI WOULD KEEP ON
sockets            program 7 (CGroupInet4Connect) on /sys/fs/cgroup
kube-system/proxy  program 8 on /sys/fs/cgroup
/sys/fs/cgroup/b   program 8 on /sys/fs/cgroup

NO PROCESS         IN THE CGROUP OF A POD THAT RUNS: ITS SOCKETS ARE WHERE PODMETER DOES NOT KNOW THEM
shop/web-1         containers and TCP health unknown, first seen 1m0s ago: /sys/fs/cgroup/kubepods/pod1
kube-system/proxy  not counted, first seen 1h0m0s ago: /sys/fs/cgroup/kubepods/pod2

POD         PORT          PROTOCOL  CONTAINER  COMMAND
shop/web-1  [::]:80       tcp       front      nginx
shop/web-1  0.0.0.0:5353  udp       -          -
`

func serveStatus(t *testing.T, status *agent.Status) (socket string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+agent.StatusPath, func(w http.ResponseWriter, _ *http.Request) {
		if err := json.NewEncoder(w).Encode(status); err != nil {
			t.Error(err)
		}
	})
	return serve(t, mux)
}

func TestStatusText(t *testing.T) {
	socket := serveStatus(t, sample())
	for _, format := range [][]string{nil, {"-o", "table"}, {"--output=text"}} {
		got := new(recorder).run(t, nil, append([]string{"status", "--socket", socket}, format...)...)
		if diff := cmp.Diff(sampleText, got.stdout); diff != "" || got.code != 0 {
			t.Errorf("%v: got %d and %q, output (-want +got):\n%s", format, got.code, got.stderr, diff)
		}
	}
}

func TestStatusTextOfAFreshAgent(t *testing.T) {
	fresh := &agent.Status{
		Version: "v0.1.0", Node: "a", AttachMode: "tcx", PinPath: "/p", Identity: agent.IdentityStatus{Source: "kubernetes"},
		Drain: agent.DrainStatus{IntervalSeconds: 0.1, Problem: "clear: busy"}, ConservationErrorBytes: 1500,
	}
	got := new(recorder).run(t, nil, "status", "--socket", serveStatus(t, fresh)).stdout
	for _, want := range []string{
		"kubernetes, not synced\n", "every 100ms, none yet; PROBLEM: clear: busy\n",
		"1,500 bytes: A BUG, please report it\n", "\nno pod's interface is metered: ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
}

func TestStatusJSON(t *testing.T) {
	got := new(recorder).run(t, nil, "status", "-o", "json", "--socket", serveStatus(t, sample()))
	var status agent.Status
	if err := json.Unmarshal([]byte(got.stdout), &status); err != nil {
		t.Fatalf("got %v of %+v, want JSON", err, got)
	}
	if diff := cmp.Diff(sample(), &status); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

// TestStatusFindsTheSocket by what the agent was told it.
func TestStatusFindsTheSocket(t *testing.T) {
	socket := serveStatus(t, sample())
	config := filepath.Join(t.TempDir(), "podmeter.yaml")
	if err := os.WriteFile(config, []byte("listen: ':1'\nsocket: "+socket+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]result{
		"environment": new(recorder).run(t, []string{"PODMETER_SOCKET=" + socket}, "status"),
		"file":        new(recorder).run(t, nil, "status", "--config", config),
	} {
		if got.code != 0 || got.stdout != sampleText {
			t.Errorf("%s: got %+v, want the status", name, got)
		}
	}
}

func TestStatusOfSomethingElse(t *testing.T) {
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"not found", http.NotFound, "it answers 404 Not Found"},
		{"no JSON", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }, "read the status of the agent"},
		{"hangs up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "ask the agent at"},
	} {
		t.Run(test.name, func(t *testing.T) {
			socket := serve(t, test.handler)
			got := new(recorder).run(t, nil, "status", "--socket", socket)
			if got.code != 1 || !strings.Contains(got.stderr, test.want) || !strings.Contains(got.stderr, socket) || got.stdout != "" {
				t.Errorf("got %+v, want 1 and %q with the socket", got, test.want)
			}
		})
	}
}

func TestProbes(t *testing.T) {
	for _, test := range []struct {
		name, flag, path string
		code             int
		body             string
		want             result
	}{
		{"ready", "--ready", agent.ReadyPath, http.StatusOK, "ready, identity is 2s old\n", result{0, "ready, identity is 2s old\n", ""}},
		{"not ready", "--ready", agent.ReadyPath, http.StatusServiceUnavailable, "pods are not synced\n",
			result{1, "", "podmeter: the agent at SOCKET is not ready: pods are not synced\n"}},
		{"not ready, as an agent says it", "--ready", agent.ReadyPath, http.StatusServiceUnavailable, "not ready\nmissing: a drain\n",
			result{1, "", "podmeter: the agent at SOCKET is not ready: missing: a drain\n"}},
		{"alive", "--alive", agent.HealthPath, http.StatusOK, "ok\n", result{0, "ok\n", ""}},
		{"stuck", "--alive", agent.HealthPath, http.StatusServiceUnavailable, "no drain for 1m\n",
			result{1, "", "podmeter: the agent at SOCKET is stuck: no drain for 1m\n"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			mux := http.NewServeMux()
			mux.HandleFunc("GET "+test.path, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(test.code)
				io.WriteString(w, test.body)
			})
			socket := serve(t, mux)
			got := new(recorder).run(t, nil, "status", test.flag, "--socket", socket)
			got.stderr = strings.ReplaceAll(got.stderr, socket, "SOCKET")
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// An agent that starts is waited for: its socket is not there yet, then it is not ready.
func TestProbesWait(t *testing.T) {
	answers := make(chan int, 2)
	answers <- http.StatusServiceUnavailable
	answers <- http.StatusOK
	socket := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(<-answers)
		io.WriteString(w, "because\n")
	}))
	late := filepath.Join(t.TempDir(), "late")
	appears := time.AfterFunc(2*probePoll, func() {
		if err := os.Symlink(socket, late); err != nil {
			t.Error(err)
		}
	})
	defer appears.Stop()
	got := new(recorder).run(t, nil, "status", "--ready", "--wait", "30s", "--socket", late)
	if want := (result{0, "because\n", ""}); got != want || len(answers) > 0 {
		t.Errorf("got %+v after %d answers, want %+v after both", got, 2-len(answers), want)
	}
}

// Who has waited in vain hears the last answer, not that the time was over.
func TestProbesWaitInVain(t *testing.T) {
	socket := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, "pods are not synced\n")
	}))
	got := new(recorder).run(t, nil, "status", "--ready", "--wait", "300ms", "--socket", socket)
	if want := "podmeter: the agent at " + socket + " is not ready: pods are not synced\n"; got.code != 1 || got.stderr != want {
		t.Errorf("got %+v, want 1 and %q", got, want)
	}
	silent := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	got = new(recorder).run(t, nil, "status", "--alive", "--wait", "300ms", "--socket", silent)
	if want := "podmeter: the agent at " + silent + " does not answer within 300ms"; got.code != 1 || !strings.HasPrefix(got.stderr, want) {
		t.Errorf("got %+v, want 1 and %q", got, want)
	}
}

// TestNobodyListens has a socket file that an agent left when it was killed.
func TestNobodyListens(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	got := new(recorder).run(t, nil, "status", "--socket", socket)
	if want := "podmeter: no agent answers at " + socket + ": is it running?"; got.code != 1 || !strings.HasPrefix(got.stderr, want) {
		t.Errorf("got %+v, want 1 and %q", got, want)
	}
}

func TestExplain(t *testing.T) {
	for _, test := range []struct {
		name string
		err  error
		want string
	}{
		{"missing", syscall.ENOENT, "no agent answers at /s: is it running?"},
		{"refused", syscall.ECONNREFUSED, "no agent answers at /s"},
		{"not allowed", syscall.EACCES, "open the agent's socket /s: permission denied"},
		{"not allowed either", fs.ErrPermission, "open the agent's socket /s: permission denied"},
		{"late", context.DeadlineExceeded, "the agent at /s does not answer within 10s"},
		{"else", syscall.EMFILE, "ask the agent at /s: dial unix: connect: too many open files"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := newClient("/s").explain(&net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", test.err)})
			if !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// What other programs do to an interface without hiding anything from podmeter is among the causes.
func TestDiffersNamesOtherPrograms(t *testing.T) {
	for _, cause := range []string{"program behind ours that drops or redirects", "program that redirects to the interface"} {
		if got := advice(datapath.StateDiffers); !strings.Contains(got, cause) {
			t.Errorf("got %q, want %q in it", got, cause)
		}
	}
}

// Every state but the one that is as it should be says what to do.
func TestAdviceForEachState(t *testing.T) {
	for _, state := range datapath.States() {
		if got := advice(state); (got == "") != (state == datapath.StateAttached) {
			t.Errorf("%s: got %q", state, got)
		}
	}
}
