// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"
)

// MinDuration is the shortest demo: time enough for pods to come and to go.
const MinDuration = 2 * time.Second

// Options are what a demo needs.
type Options struct {
	// Duration is how long traffic flows, at least [MinDuration]. What comes
	// before and after takes some seconds more.
	Duration time.Duration
	// Attach is auto, tcx or netlink.
	Attach string
	// Listen is the host:port of /metrics.
	Listen string
	// Output is where the screen and the reconciliation go. A terminal gets a
	// table that refreshes.
	Output io.Writer
	// NewAgent makes the agent to be shown. It is called in the node.
	NewAgent func(AgentOptions) (Agent, error)
}

// nodeEnv marks the process that is the node. Its value is the id of the process
// that started it, so that a variable left over means nothing.
const nodeEnv = "_PODMETER_DEMO_NODE"

// Run shows the demo and returns nil if every byte was accounted for. It returns
// soon after the context is done, with an error.
//
// Run starts the program once more with the arguments that it was started with,
// and expects to be called there with the same options.
func Run(ctx context.Context, options Options) error {
	if os.Getenv(nodeEnv) == strconv.Itoa(os.Getppid()) {
		return runNode(ctx, options)
	}
	if err := options.validate(); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", options.Listen)
	if err != nil {
		return fmt.Errorf("serve metrics: %w; --listen chooses another address", err)
	}
	defer listener.Close()
	return supervise(ctx, listener.(*net.TCPListener), options.Output)
}

func (o Options) validate() error {
	if os.Geteuid() != 0 {
		return errors.New("the demo makes network namespaces and loads BPF programs, which needs root: sudo make demo")
	}
	if o.Duration < MinDuration {
		return fmt.Errorf("--duration %v: at least %v is needed for pods to come and to go", o.Duration, MinDuration)
	}
	return nil
}
