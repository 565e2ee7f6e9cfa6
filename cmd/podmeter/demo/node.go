// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// runNode is the demo inside the node's process. Its verdict goes to the parent;
// it returns nil when that has been said, whatever it was.
func runNode(ctx context.Context, options Options) error {
	if err := unix.SetNonblock(lifeFD, true); err != nil { // so that Close ends the reading
		return fmt.Errorf("take over the pipe from the demo's parent: %w", err)
	}
	life := os.NewFile(lifeFD, "life")
	said := os.NewFile(verdictFD, "verdict")
	defer said.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		life.Read(make([]byte, 1)) // returns when the parent is gone, or at our end
		cancel(errParentGone)
	}()
	defer func() {
		life.Close()
		<-watching
	}()
	defer context.AfterFunc(ctx, killLater)()
	var v verdict
	switch err := showInside(ctx, options); {
	case errors.Is(err, context.Canceled):
		v.Error = errInterrupted.Error()
	case err != nil:
		v.Error = err.Error()
	}
	if err := json.NewEncoder(said).Encode(v); err != nil && !errors.Is(err, unix.EPIPE) { // nobody is left to hear it
		return fmt.Errorf("tell how the demo ended: %w", err)
	}
	return nil
}

// killLater is for a node that hangs and has no parent any more to kill it.
// Nothing but its process has to go.
func killLater() {
	time.AfterFunc(endWithin, func() { unix.Kill(os.Getpid(), unix.SIGKILL) })
}

// showInside makes the node's world, shows the agent in it and takes it down.
func showInside(ctx context.Context, options Options) (err error) {
	listener, err := inheritedListener()
	if err != nil {
		return err
	}
	if err := mountPrivate(); err != nil {
		return errors.Join(err, listener.Close())
	}
	here, err := currentNamespace("the node")
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	w, err := newWorld(here)
	if err != nil {
		return errors.Join(fmt.Errorf("make the demo's world: %w", err), listener.Close())
	}
	defer func() { err = errors.Join(err, w.close()) }()
	return newShow(options, w, listener.Addr()).run(ctx, listener)
}

func inheritedListener() (net.Listener, error) {
	file := os.NewFile(listenerFD, "listener")
	listener, err := net.FileListener(file)
	if err != nil {
		err = fmt.Errorf("take the listener over: %w", err)
	}
	return listener, errors.Join(err, file.Close())
}
