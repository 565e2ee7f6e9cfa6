// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/podmeter/podmeter/flows/geo/demodb"
	"github.com/podmeter/podmeter/internal/ktest"
)

// The whole stack runs: agents that fetched their places, a Prometheus with all rules,
// podmeter geoip beside it, and a demo whose clients and crawler are in the answers, by
// the newer names and by the older ones.
func TestStack(t *testing.T) {
	c := inCluster(t)
	c.checkAdmitted(t)
	objects := strings.ReplaceAll(c.rendered(t, "testdata/stack"), "http://mirror.test", serveDatabases(t))
	c.applyMonitoring(t, objects)
	for _, controller := range []string{"deployment/prometheus", "deployment/geoip"} {
		c.rolledOut(t, monitoringNamespace, controller)
	}
	for _, controller := range []string{"deployment/web", "deployment/client", "deployment/crawler"} {
		c.rolledOut(t, demoNamespace, controller)
	}
	p := c.prometheus(t)
	for _, expected := range []string{
		// podmeter's own names, and rules on them.
		`podmeter_external_transmit_bytes_total{namespace="podmeter-demo", country!~"|other", latitude!="", ip="198.51.100.7"} > 0`,
		`edge:podmeter_transmit_bytes:rate5m{namespace="podmeter-demo", workload="client", peer="web"} > 0`,
		`namespace:podmeter_external_transmit_bytes:rate5m{namespace="podmeter-demo"} > 0`,
		// Those of the older stack: its query, its sums, its map.
		`sum by (k8s_namespace, k8s_pod, destination_ip) (bytes_tx{}) > 0`,
		`sum by (k8s_pod) (rate(bytes_rx:sum{k8s_namespace="podmeter-demo", container_name="client"}[1m])) > 0`,
		`geo_ip{k8s_namespace="podmeter-demo", ip="198.51.100.7", latitude!="", longitude!=""} > 0`,
	} {
		p.await(t, "an answer", expected, present)
	}
	if found, err := p.query(`prometheus_rule_evaluation_failures_total > 0`); err != nil || len(found) != 0 {
		t.Errorf("failures of rules: got %v, %v, want none", found, err)
	}
	p.await(t, "all targets up", `sum by (job) (up)`, func(found model.Vector) string {
		up := make(map[model.LabelValue]model.SampleValue)
		for _, s := range found {
			up[s.Metric["job"]] = s.Value
		}
		if len(up) != 3 || up["podmeter"] != 1 || up["geoip"] != 1 || up["prometheus"] != 1 {
			return fmt.Sprintf("got %v, want one of podmeter, geoip and prometheus", up)
		}
		return ""
	})
	c.checkPage(t)
}

// checkPage asks for the agent's page as docs/DEPLOY.md says, by the API server's proxy: it
// shows the demo, and where its crawler's peers are.
func (c *cluster) checkPage(t *testing.T) {
	t.Helper()
	proxy := fmt.Sprintf("/api/v1/namespaces/%s/pods/%s:9739/proxy/", agentNamespace, c.agentPod(t))
	if html := string(c.kubectl(t, "", "get", "--raw", proxy)); !strings.Contains(html, `src="page/page.js"`) {
		t.Errorf("page: got %.200q, want its script", html)
	}
	ktest.AwaitWithin(t, patience, "the demo on the page", func() string {
		var state struct {
			Node   string
			Books  struct{ Difference uint64 }
			Pods   struct{ Rows []struct{ Namespace string } }
			Places struct{ Rows []struct{ At []float64 } }
		}
		content := c.kubectl(t, "", "get", "--raw", proxy+"page/state")
		if err := json.Unmarshal(content, &state); err != nil {
			return err.Error()
		}
		demo := slices.ContainsFunc(state.Pods.Rows, func(r struct{ Namespace string }) bool { return r.Namespace == demoNamespace })
		located := slices.ContainsFunc(state.Places.Rows, func(r struct{ At []float64 }) bool { return len(r.At) == 2 })
		if state.Node != c.node || state.Books.Difference != 0 || !demo || !located {
			return string(content)
		}
		return ""
	})
}

// agentPod is the name of the agent's.
func (c *cluster) agentPod(t *testing.T) string {
	t.Helper()
	return string(c.kubectl(t, "", "get", "pods", "--namespace", agentNamespace, "--selector", agents,
		"--output", "jsonpath={.items[0].metadata.name}"))
}

const demoNamespace = "podmeter-demo"

// checkAdmitted wants the API server to take all that is shipped: Grafana, whose image
// cannot be had here, the claims of storage, and what else does not run. The namespaces
// are there before, as nothing is made in a dry run, and until the test ends.
func (c *cluster) checkAdmitted(t *testing.T) {
	t.Helper()
	for _, name := range []string{monitoringNamespace, demoNamespace, "kentiklabs"} {
		c.kubectl(t, "", "create", "namespace", name)
		t.Cleanup(func() { c.cleanUp(t, "delete", "namespace", name, "--ignore-not-found", "--wait=false") })
	}
	for _, folder := range []string{manifests + "overlays/stack", manifests + "overlays/compatibility", "../deploy/testdata/storage"} {
		said := string(c.kubectl(t, c.rendered(t, folder), "apply", "--dry-run=server", "--filename", "-"))
		for _, want := range []string{"daemonset.apps/podmeter", "deployment.apps/grafana", "deployment.apps/geoip", "deployment.apps/crawler"} {
			if !strings.Contains(said, want) {
				t.Errorf("%s: got %q, want %s in it", folder, said, want)
			}
		}
		if strings.Contains(said, "would violate PodSecurity") {
			t.Errorf("%s: got %q, want nothing that Pod Security warns of", folder, said)
		}
	}
}

// serveDatabases serves the demo's database under the names of DB-IP, of this month
// and the one before, to pods of the node. It returns the URL of the folder.
func serveDatabases(t *testing.T) string {
	t.Helper()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(demodb.City()); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	host, _, err := net.SplitHostPort(strings.TrimPrefix(strings.TrimSuffix(os.Getenv("PODMETER_METRICS"), "/metrics"), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/dbip-country-lite-") {
			http.NotFound(w, r)
			return
		}
		w.Write(packed.Bytes()) // who does not read it fetches again
	})}
	go server.Serve(listener) // until it is closed
	t.Cleanup(func() { server.Close() })
	return "http://" + listener.Addr().String()
}
