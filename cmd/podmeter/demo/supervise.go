// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// endWithin is how long the node may take to end before it is killed.
const endWithin = 10 * time.Second

// The descriptors that the node is started with.
const (
	listenerFD = 3 + iota // accepts connections to /metrics
	lifeFD                // reads end of file as soon as the parent is gone
	verdictFD             // takes the verdict
)

// verdict is how the demo ended, as the node says at its end.
type verdict struct {
	Error string `json:"error,omitempty"`
}

// supervise runs the node and returns its verdict. The node ends when the
// context is done or a process is gone that this one was started for.
func supervise(ctx context.Context, listener *net.TCPListener, output io.Writer) error {
	family, err := watchFamily()
	if err != nil {
		return err
	}
	defer family.close()
	life, alive, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer life.Close()
	defer alive.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	family.whenGone(cancel)
	// The node learns of the end by the pipe, as it would if we were killed: a
	// signal could reach it twice, from the terminal and from us.
	defer context.AfterFunc(ctx, func() { alive.Close() })()
	return runSupervised(ctx, cancel, listener, life, output)
}

// Errors of a demo that did not come to its end.
var (
	errNoVerdict   = errors.New("the demo's node ended without a verdict")
	errInterrupted = errors.New("interrupted")
)

// runSupervised starts the node and waits for its verdict, and for its end, which
// it may not put off then.
func runSupervised(
	ctx context.Context, cancel context.CancelCauseFunc, listener *net.TCPListener, life *os.File, output io.Writer,
) error {
	accepting, err := listener.File()
	if err != nil {
		return fmt.Errorf("pass listener to the node: %w", err)
	}
	defer accepting.Close()
	reading, writing, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer reading.Close()
	node := nodeCommand(ctx, output, accepting, life, writing)
	if err := node.Start(); err != nil {
		return errors.Join(fmt.Errorf("start the demo's node: %w", err), writing.Close())
	}
	writing.Close()
	var said verdict
	malformed := json.NewDecoder(reading).Decode(&said)
	interrupted := context.Cause(ctx)
	cancel(nil)
	ended := node.Wait()
	if malformed != nil {
		said.Error = fmt.Sprintf("%v: %v", errNoVerdict, ended)
	}
	return said.err(interrupted)
}

// err is what the demo ended with; interrupted is why it had to end, if it had.
func (v verdict) err(interrupted error) error {
	switch {
	case v.Error == "":
		return nil
	case errors.Is(interrupted, context.Canceled):
		return errInterrupted
	case interrupted != nil:
		return interrupted
	}
	return errors.New(v.Error)
}

// nodeCommand is this program in namespaces of its own: of the network, and of
// mounts, so that pins and state end with it.
func nodeCommand(ctx context.Context, output io.Writer, files ...*os.File) *exec.Cmd {
	node := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	node.Args[0] = os.Args[0]
	node.Env = append(os.Environ(), nodeEnv+"="+strconv.Itoa(os.Getpid()))
	node.Stdin, node.Stdout, node.Stderr = os.Stdin, output, os.Stderr
	node.ExtraFiles = files
	node.Cancel = func() error { return nil } // it has been told by the pipe
	node.WaitDelay = endWithin
	node.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	return node
}
