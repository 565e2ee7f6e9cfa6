// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/identity"
)

// An interface is ready when a pod of this node has one of its addresses, until
// the pod has ended.
func TestReadyWhenAPodHasTheAddress(t *testing.T) {
	i := kubernetesIdentities(t)
	address, other := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8::7")
	asked := []netip.Addr{netip.MustParseAddr("203.0.113.1"), address, other}
	pod := func(change func(*identity.Pod)) *identity.Pod {
		p := &identity.Pod{
			Pod:     flows.Pod{UID: "uid", Namespace: "default", Name: "web", Node: "here"},
			Started: time.Now().Add(-time.Minute), Addresses: []netip.Addr{address},
		}
		if change != nil {
			change(p)
		}
		return p
	}
	for _, test := range []struct {
		name string
		pod  *identity.Pod
		want bool
	}{
		{"no pod", nil, false},
		{"a pod without address", pod(func(p *identity.Pod) { p.Addresses = nil }), false},
		{"a pod of another node", pod(func(p *identity.Pod) { p.Node = "there" }), false},
		{"a pod of this node", pod(nil), true},
		{"its second address", pod(func(p *identity.Pod) { p.Addresses = []netip.Addr{other} }), true},
		{"a pod with another address", pod(func(p *identity.Pod) {
			p.Addresses = []netip.Addr{netip.MustParseAddr("198.51.100.8")}
		}), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.pod != nil {
				i.cache.SetPod(test.pod)
				defer i.cache.DeletePod(test.pod)
			}
			if got := i.ready(flows.Interface{Addresses: asked}); got != test.want {
				t.Errorf("got %t, want %t", got, test.want)
			}
			if i.ready(flows.Interface{}) {
				t.Error("without addresses: got ready")
			}
		})
	}
}

func kubernetesIdentities(t *testing.T) *identities {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	content := `{"apiVersion": "v1", "kind": "Config", "current-context": "c",
"clusters": [{"name": "c", "cluster": {"server": "https://203.0.113.9:6443"}}],
"contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}], "users": [{"name": "u", "user": {"token": "t"}}]}`
	if err := os.WriteFile(kubeconfig, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	config := Defaults()
	config.Identity, config.Kubeconfig, config.NodeName = IdentityKubernetes, kubeconfig, "here"
	i, err := newIdentities(config, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// Without Kubernetes nothing is waited for.
func TestNobodyIsAskedWithoutKubernetes(t *testing.T) {
	config := Defaults()
	config.Identity = IdentityNone
	i, err := newIdentities(config, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if i.ready != nil {
		t.Error("got a function to ask, want none")
	}
}
