// SPDX-License-Identifier: Apache-2.0

// Command scale measures what an agent in a large cluster costs itself and the
// API server. It starts a real etcd and kube-apiserver, fills them with nodes,
// services and pods that nobody runs, changes pods at a steady rate, and runs a
// real agent on it, once for each scope. That of an earlier build runs beside it if
// there is one: what the machine does else falls on both alike.
//
// run.sh beside it gives it namespaces of its own. What is measured and what was
// found is in docs/BENCHMARKS.md.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/podmeter/podmeter/internal/kubetest"
)

// options are the size of the cluster and what is measured on it.
type options struct {
	agent, earlier        string
	commands, etcd        string
	arguments             string
	pods, services, nodes int
	changes               float64
	duration              time.Duration
	scopes, keep          string
}

func main() {
	var o options
	flag.StringVar(&o.agent, "agent", "bin/podmeter", "podmeter's command")
	flag.StringVar(&o.earlier, "earlier", "", "command of an earlier build, which is measured under the same changes")
	flag.StringVar(&o.arguments, "arguments", "", "more arguments of the agent")
	flag.StringVar(&o.commands, "commands", os.Getenv(kubetest.CommandsEnv), "folder of kube-apiserver")
	flag.StringVar(&o.etcd, "etcd", "", "etcd's command (default the one in PATH)")
	flag.IntVar(&o.pods, "pods", 10_000, "pods of the cluster")
	flag.IntVar(&o.services, "services", 2_000, "services of the cluster")
	flag.IntVar(&o.nodes, "nodes", 1_000, "nodes of the cluster")
	flag.Float64Var(&o.changes, "changes", 50, "pod changes a second")
	flag.DurationVar(&o.duration, "duration", time.Minute, "how long each agent is measured under changes")
	flag.StringVar(&o.scopes, "scopes", "cluster,node", "scopes to measure, one after the other")
	flag.StringVar(&o.keep, "keep", "", "folder to keep the cluster in, which a later run takes as it is")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	folder, err := os.MkdirTemp("", "podmeter-scale-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	data := cmp.Or(o.keep, folder)
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	server, err := kubetest.New(ctx, kubetest.Options{Commands: o.commands, Etcd: o.etcd, Folder: data})
	if err != nil {
		return err
	}
	defer server.Close()
	client, err := server.Client()
	if err != nil {
		return err
	}
	world := &world{options: o, client: client}
	if err := world.prepare(ctx, filepath.Join(data, "filled")); err != nil {
		return err
	}
	for scope := range strings.SplitSeq(o.scopes, ",") {
		if scope == "" {
			continue
		}
		if err := measure(ctx, world, server, folder, scope); err != nil {
			return fmt.Errorf("measure scope %s: %w", scope, err)
		}
	}
	return nil
}
