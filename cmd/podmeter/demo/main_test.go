// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sys/unix"
)

// The test binary is also the program that demos run: tokenEnv makes it that,
// and names the test's processes; faultEnv is what its agent does wrong.
const (
	tokenEnv = "DEMO_TEST_TOKEN"
	faultEnv = "DEMO_TEST_FAULT"
)

func TestMain(m *testing.M) {
	if os.Getenv(tokenEnv) != "" {
		os.Exit(demoProgram())
	}
	ktest.Main(m)
}

func demoProgram() int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	err := Run(ctx, Options{
		Duration: MinDuration, Attach: "auto", Listen: "127.0.0.1:0", Output: os.Stdout,
		NewAgent: func(o AgentOptions) (Agent, error) { return newFakeAgent(o, os.Getenv(faultEnv)) },
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	return 0
}
