// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"os"
	"testing"

	"github.com/podmeter/podmeter/bpf/shallowbuild"
	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/flows"
)

// falsify makes an agent that a test starts export what is not true. Its value is one of
// falsehoods. No other build than the tests' knows of it.
const falsify = "PODMETER_TEST_FALSIFY"

// falsehoods change one row of what is exported, by one byte.
var falsehoods = map[string]func(*flows.Snapshot){
	"a flow row": func(s *flows.Snapshot) { addByte(s.Flows) },
	"a pod":      func(s *flows.Snapshot) { addByte(s.Pods) },
	"an interface": func(s *flows.Snapshot) {
		if len(s.Exported) > 0 {
			s.Exported[0].Counters[flows.Transmit].Bytes++
		}
	},
	// So that the pod's sums agree with each other, and with no interface.
	"a pod and its interface": func(s *flows.Snapshot) {
		addByte(s.Pods)
		addByte(s.Flows)
		if len(s.Exported) > 0 {
			s.Exported[0].Counters[flows.Transmit].Bytes++
		}
	},
}

func addByte[L any](rows []flows.Series[L]) {
	for i := range rows {
		if rows[i].Counters[flows.Transmit].Bytes > 0 {
			rows[i].Counters[flows.Transmit].Bytes++
			return
		}
	}
}

// shallow makes an agent that a test starts read fewer headers, which takes the kernel a
// tenth of the time to verify.
const shallow = "PODMETER_TEST_SHALLOW"

// tested returns the commands as they are, but for an agent that is to say what is not
// true, or to be there sooner.
func tested() *commands {
	c := production(nil)
	o := agent.Options{Amend: falsehoods[os.Getenv(falsify)]}
	if os.Getenv(shallow) != "" {
		o.Programs = shallowbuild.LoadShallow
	}
	c.runAgent = func(ctx context.Context, config agent.Config, log *slog.Logger) error {
		o.Logger = log
		return runAgentWith(ctx, config, o)
	}
	return c
}

// requireTestBuild skips a test of what a built podmeter cannot do.
func requireTestBuild(t *testing.T) {
	t.Helper()
	if os.Getenv(binary) != "" {
		t.Skipf("%s is set: a built podmeter says nothing that is not true", binary)
	}
}
