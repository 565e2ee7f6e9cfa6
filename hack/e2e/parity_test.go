// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/verify"
	flow "github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
)

// After mixed traffic each pod's series are what the kubelet's cAdvisor and the
// pod's own interface count, to the byte and the packet, and the identities hold.
func TestParity(t *testing.T) {
	c := inCluster(t)
	c.exchange(t, "e2e-parity", 10*time.Second, func() {})
}

// So they are when agents come and go while the traffic runs, some of it as fast as
// it goes; and meanwhile no counter goes down.
func TestParityAcrossRollouts(t *testing.T) {
	c := inCluster(t)
	const namespace = "e2e-stream"
	c.world(t, namespace)
	client, echo := c.podOf(t, namespace, "client"), c.podOf(t, namespace, "echo")
	pending := map[string]bool{client.Metadata.Name: true, echo.Metadata.Name: true}

	c.exchange(t, "e2e-rollout", outage, func() {
		defer c.neverDown(t)()
		streamed := c.background(t, namespace, client.Metadata.Name,
			"stream", net.JoinHostPort(c.service(t, namespace, "echo")[0], "7"), "20")
		c.kubectl(t, "", "rollout", "restart", "--namespace", agentNamespace, "daemonset/podmeter")
		c.rolledOut(t, agentNamespace, "daemonset/podmeter")
		c.kubectl(t, "", "delete", "pod", "--namespace", agentNamespace, "--selector", agents,
			"--force", "--grace-period", "0")
		c.rolledOut(t, agentNamespace, "daemonset/podmeter")
		c.killAgent(t)
		streamed()
	})
	ktest.AwaitWithin(t, patience, "equal counts of the stream", func() string { return c.parity(t, namespace, pending) })
	c.checkIdentities(t, namespace, 3)
}

// exchange lets the pods of a new namespace talk for so long at least, meanwhile does
// what it is told, and compares the counters.
func (c *cluster) exchange(t *testing.T, namespace string, lasts time.Duration, meanwhile func()) {
	t.Helper()
	c.namespace(t, namespace)
	c.apply(t, namespace, "servers.yaml")
	c.rolledOut(t, namespace, "deployment/web")
	c.rolledOut(t, namespace, "statefulset/store")
	c.introduce(t, namespace, lasts)
	c.apply(t, namespace, "clients.yaml")
	// The Job ends while an agent runs: a pod whose whole life fell between two agents
	// would be in no series.
	c.completed(t, namespace, "report")
	meanwhile()
	// A client is ready when it has sent all that it has to send.
	c.rolledOut(t, namespace, "deployment/client")

	pods := c.pods(t, namespace)
	if len(pods) < 8 {
		t.Fatalf("got %d pods, want 8 at least", len(pods))
	}
	pending := make(map[string]bool, len(pods))
	for _, p := range pods {
		pending[p.Metadata.Name] = true
	}
	ktest.AwaitWithin(t, patience, "three equal counts of each pod", func() string { return c.parity(t, namespace, pending) })
	c.checkIdentities(t, namespace, 9) // the Job's too, which has ended
}

// introduce tells the clients the addresses of a pod of the StatefulSet, and how many
// rounds to go: each takes a second.
func (c *cluster) introduce(t *testing.T, namespace string, lasts time.Duration) {
	t.Helper()
	for _, p := range c.pods(t, namespace) {
		if p.Metadata.Name == "store-0" {
			c.kubectl(t, "", "create", "configmap", "peers", "--namespace", namespace,
				"--from-literal", "STORE="+p.Status.PodIPs[0].IP, "--from-literal", "STORE6="+p.Status.PodIPs[1].IP,
				"--from-literal", fmt.Sprintf("ROUNDS=%.0f", lasts.Seconds()))
			return
		}
	}
	t.Fatal("no pod store-0")
}

// parity compares the pods that have not been equal yet, and takes out those that
// are. Routers and neighbours are asked for at any time, so that a difference may
// be only that one count was read later.
func (c *cluster) parity(t *testing.T, namespace string, pending map[string]bool) (why string) {
	kubelet, podmeter := c.kubelet(t), c.podmeter(t)
	for name := range pending {
		ours, theirs, own := podmeter.family("pod", namespace, name), kubelet.container(namespace, name), c.own(t, namespace, name)
		if ours == theirs && ours == own && ours.transmitBytes > 0 {
			t.Logf("%s: %v", name, ours)
			delete(pending, name)
			continue
		}
		why = fmt.Sprintf("%s: podmeter %v; cAdvisor %v; its interface %v", name, ours, theirs, own)
	}
	return why
}

// checkIdentities checks the invariants in one scrape, as 'podmeter verify' does, which is
// to have series of so many pods of a namespace at least.
func (c *cluster) checkIdentities(t *testing.T, namespace string, pods int) {
	t.Helper()
	text, err := fetch(t.Context(), os.Getenv("PODMETER_METRICS"))
	if err != nil {
		t.Fatal(err)
	}
	exposition, err := verify.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range exposition.Invariants() {
		for _, fault := range i.Faults {
			t.Error(fault.Text(&i))
		}
	}
	seen := 0
	for pod := range exposition.Sums(verify.Series(verify.FamilyPod, flow.Transmit, verify.Bytes), nil) {
		if pod.Namespace == namespace {
			seen++
		}
	}
	if seen < pods {
		t.Errorf("got series of %d pods, want %d at least", seen, pods)
	}
}
