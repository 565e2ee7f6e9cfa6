// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/datapath"
)

// What a manifest has to have is the last that a pod says; elsewhere nobody has one.
func TestManifestIsTheLastLine(t *testing.T) {
	capability := fmt.Errorf("%w: CAP_BPF", datapath.ErrCapability)
	noBPFFS := agent.Usage(fmt.Errorf("%w at /p", datapath.ErrNoBPFFS))
	pod := []string{"KUBERNETES_SERVICE_HOST=192.0.2.1", "NODE_NAME=node-a"}
	for _, test := range []struct {
		name    string
		environ []string
		err     error
		code    int
		last    string
	}{
		{"missing capability", pod, capability, 1, "podmeter: in the pod's manifest, the container's securityContext needs "},
		{"missing mount", pod, noBPFFS, 2, "podmeter: in the pod's manifest, volumes needs "},
		{"something else", pod, errors.New("no such thing"), 1, "podmeter: no such thing"},
		{"no pod", nil, capability, 1, "podmeter: missing capability: CAP_BPF"},
		{"missing node name", pod[:1], nil, 2, "see 'podmeter agent --help'"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := (&recorder{err: test.err}).run(t, test.environ, "agent")
			lines := strings.Split(strings.TrimSpace(got.stderr), "\n")
			if last := lines[len(lines)-1]; got.code != test.code || !strings.HasPrefix(last, test.last) {
				t.Errorf("got %d and at last %q, want %d and %q", got.code, last, test.code, test.last)
			}
		})
	}
}
