// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"os"
	"slices"
	"testing"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/internal/effort"
)

// No pod, tenant, file or receiver harms the agent, its scrapes or the bytes of others.
func TestHostile(t *testing.T) {
	effort.Long(t, "attacks for a minute")
	binary := build(t)
	t.Run("plain", func(t *testing.T) {
		w := newPlainWorld(t, binary)
		w.suffer(t, plainAttacks())
		w.agent.terminate(t)
	})
	t.Run("TLS", func(t *testing.T) {
		w, secrets := newTLSWorld(t, binary)
		w.suffer(t, tlsAttacks())
		w.keepsSecrets(t, secrets)
		w.agent.terminate(t)
	})
	t.Run("cluster", func(t *testing.T) {
		w, api, receivers := newClusterWorld(t, binary)
		w.suffer(t, slices.Concat(clusterAttacks(api, receivers), processAttacks()))
		w.agent.terminate(t)
	})
}

// plainAttacks come one after the other to one agent. The first fills its tables, so that
// scrapes are as large as they get when others read them.
func plainAttacks() []attack {
	return slices.Concat(tableAttacks(), packetAttacks(), connectionAttacks(), fileAttacks())
}

// newPlainWorld is one whose agent serves without TLS.
func newPlainWorld(t *testing.T, binary string) *world {
	t.Helper()
	w := newWorld(t, binary)
	file := w.staticFile()
	if err := os.WriteFile(file, []byte(w.static()), 0o600); err != nil {
		t.Fatal(err)
	}
	w.start(t, "http", nil, "--static-file", file)
	return w
}

// attached reports whether all pods are metered.
func attached(s *agent.Status) bool {
	for _, i := range s.Interfaces {
		if i.State != "attached" || i.Pod == "" {
			return false
		}
	}
	return len(s.Interfaces) == 1+hostilePods
}
