// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/ktest"
)

// What is resent where segments are lost on the way is what the pod's own kernel counts,
// to the segment; connections are counted as they open and fail, and the RTT is that which
// ss shows, while a connection lives.
func TestTCPHealth(t *testing.T) {
	c := inCluster(t)
	const namespace = "e2e-health"
	c.world(t, namespace)
	internet(t)
	client := c.podOf(t, namespace, "client").Metadata.Name
	for n, family := range []string{"IPv4", "IPv6"} {
		to := net.JoinHostPort(outside[n], port)
		t.Run(family+" loss", func(t *testing.T) { c.lose(t, namespace, client, to) })
		t.Run(family+" RTT", func(t *testing.T) { c.roundTrips(t, namespace, client, to) })
		t.Run(family+" refused", func(t *testing.T) {
			before := c.health(t, namespace, client)
			refused := []string{"tcp", net.JoinHostPort(outside[n], "1"), "1", "1"}
			if out, err := c.trafficIn(t.Context(), container(t, namespace, client), refused...); err == nil {
				t.Fatalf("nobody listens there: got %s, want an error", out)
			}
			c.awaitHealth(t, namespace, client, before, health{failed: 1})
		})
	}
}

// health is what happened to a pod's connections.
type health struct{ opened, failed, segments, bytes, samples, seconds float64 }

func (c *cluster) health(t *testing.T, namespace, pod string) health {
	t.Helper()
	s := c.podmeter(t)
	of := func(what string) float64 { return s.sum("podmeter_tcp_"+what, "namespace", namespace, "pod", pod) }
	h := health{
		opened: of("connections_opened_total"), failed: of("connections_failed_total"),
		segments: of("retransmitted_segments_total"), bytes: of("retransmitted_bytes_total"),
	}
	for _, m := range s["podmeter_tcp_rtt_seconds"].GetMetric() {
		if has(m, []string{"namespace", namespace, "pod", pod}) {
			h.samples += float64(m.GetSummary().GetSampleCount())
			h.seconds += m.GetSummary().GetSampleSum()
		}
	}
	return h
}

func (h health) minus(o health) health {
	return health{h.opened - o.opened, h.failed - o.failed, h.segments - o.segments, h.bytes - o.bytes, h.samples - o.samples, h.seconds - o.seconds}
}

// awaitHealth waits until connections and segments have grown by exactly so many, and
// returns by what all grew.
func (c *cluster) awaitHealth(t *testing.T, namespace, pod string, before, want health) (grown health) {
	t.Helper()
	ktest.AwaitWithin(t, patience, "the health of "+pod, func() string {
		grown = c.health(t, namespace, pod).minus(before)
		if grown.opened != want.opened || grown.failed != want.failed || grown.segments != want.segments {
			return fmt.Sprintf("got %+v, want %+v", grown, want)
		}
		return ""
	})
	return grown
}

// lose lets every 15th segment that a pod sends vanish on its way through the node.
func (c *cluster) lose(t *testing.T, namespace, pod, to string) {
	before, resent := c.health(t, namespace, pod), c.resent(t, namespace, pod)
	const table = "inet e2e_loss"
	output(t, "nft", "add table "+table+"; add chain "+table+" forward { type filter hook forward priority 0; }; "+
		"add rule "+table+" forward tcp dport "+port+" numgen inc mod 15 == 0 drop")
	defer func() {
		if out, err := exec.Command("nft", "delete table "+table).CombinedOutput(); err != nil {
			t.Errorf("delete table: %v: %s", err, out)
		}
	}()
	c.traffic(t, namespace, pod, request{2_000_000, 100_000}.to(to)...)
	lost := c.resent(t, namespace, pod) - resent
	if lost == 0 {
		t.Fatal("nothing was resent: the rule drops nothing")
	}
	grown := c.awaitHealth(t, namespace, pod, before, health{opened: 1, segments: lost})
	if grown.bytes == 0 {
		t.Errorf("got %+v, want bytes that were resent", grown)
	}
	t.Logf("%+v", grown)
}

// resent is how many segments the pod's kernel has sent again (RFC 4022,
// tcpRetransSegs).
func (c *cluster) resent(t *testing.T, namespace, pod string) float64 {
	t.Helper()
	out := c.kubectl(t, "", "exec", "--namespace", namespace, pod, "--", "cat", "/proc/net/snmp")
	var names, values []string
	for line := range strings.Lines(string(out)) {
		if rest, tcp := strings.CutPrefix(line, "Tcp: "); tcp {
			names, values = values, strings.Fields(rest)
		}
	}
	for i, name := range names {
		if name == "RetransSegs" && i < len(values) {
			n, err := strconv.ParseFloat(values[i], 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no RetransSegs in %s", out)
	return 0
}

// roundTrips compares the mean RTT of a connection that lives with what ss shows of it.
func (c *cluster) roundTrips(t *testing.T, namespace, pod, to string) {
	before, resent := c.health(t, namespace, pod), c.resent(t, namespace, pod)
	ended := c.background(t, namespace, pod, "stream", to, "8")
	var grown health
	ktest.AwaitWithin(t, patience, "samples of a connection that lives", func() string {
		if grown = c.health(t, namespace, pod).minus(before); grown.opened != 1 || grown.samples < 10 {
			return fmt.Sprintf("got %+v", grown)
		}
		return ""
	})
	shown := c.shownRTT(t, namespace, pod)
	if mean := grown.seconds / grown.samples; mean > 20*shown || shown > 20*mean {
		t.Errorf("got a mean RTT of %.6f s, want about %.6f s as ss shows", mean, shown)
	}
	t.Logf("%.0f samples, on average %.6f s; ss shows %.6f s", grown.samples, grown.seconds/grown.samples, shown)
	ended()
	// As fast as it goes, some is lost on the way without our doing.
	c.awaitHealth(t, namespace, pod, before, health{opened: 1, segments: c.resent(t, namespace, pod) - resent})
}

var rttOf = regexp.MustCompile(`\brtt:([0-9.]+)/`)

// shownRTT returns the smoothed RTT of the pod's established connection, in seconds.
func (c *cluster) shownRTT(t *testing.T, namespace, pod string) (seconds float64) {
	t.Helper()
	in, process := container(t, namespace, pod), ""
	for line := range strings.Lines(ctr(t, "tasks", "list")) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == in {
			process = fields[1]
		}
	}
	found := rttOf.FindStringSubmatch(output(t, "nsenter", "--target", process, "--net", "ss", "-Htin", "state", "established"))
	if found == nil {
		t.Fatal("ss shows no connection")
	}
	milliseconds, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return milliseconds / float64(time.Second/time.Millisecond)
}
