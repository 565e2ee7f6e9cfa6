// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/podmeter/podmeter/internal/owned"
	"golang.org/x/sys/unix"
)

const (
	// listenWait is how long a busy port or socket is waited for: a roll-out
	// starts the next agent while the last one still ends.
	listenWait = 60 * time.Second
	listenPoll = 200 * time.Millisecond
)

// errTaken says that another process has what is to be listened on.
var errTaken = errors.New("taken")

// listenTCP listens, and waits while another process has the port.
func listenTCP(ctx context.Context, address string, log *slog.Logger) (net.Listener, error) {
	return whenFree(ctx, log, func() (net.Listener, error) {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if errors.Is(err, unix.EADDRINUSE) {
			err = fmt.Errorf("%w: %w; 'ss -ltnp' shows by whom, --listen chooses another", errTaken, err)
		}
		return listener, err
	})
}

// listenSocket listens on a unix socket that only its owner may use, and waits
// while another agent has it. A socket is replaced only where the kernel says that
// nobody listens on it any more: one whose queue is full is alive.
func listenSocket(ctx context.Context, path string, log *slog.Logger) (net.Listener, error) {
	if err := owned.CheckSticky(filepath.Dir(path)); errors.Is(err, owned.ErrForeign) {
		return nil, Usage(fmt.Errorf("--socket: %w", err))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make directory of socket: %w", unwritable(err))
	}
	return whenFree(ctx, log, func() (net.Listener, error) {
		if err := probeSocket(path); err != nil {
			return nil, err
		}
		if err := removeSocket(path); err != nil {
			return nil, err
		}
		return bindSocket(path)
	})
}

// probeSocket returns an error unless there is no socket or nobody listens on it.
func probeSocket(path string) error {
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("%w: another agent answers at %s; stop it, or choose another --socket", errTaken, path)
	case errors.Is(err, unix.EAGAIN): // its queue is full (unix(7))
		return fmt.Errorf("%w: another process listens at %s and does not answer; stop it, or choose another --socket", errTaken, path)
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("ask whether another agent answers: %w", unwritable(err))
}

func removeSocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && info.Mode().Type() != fs.ModeSocket:
		return Usage(fmt.Errorf("--socket %s: there is a file that is no socket; move it away or choose another", path))
	case err == nil:
		err = os.Remove(path)
	}
	if err != nil {
		return fmt.Errorf("replace old socket: %w", unwritable(err))
	}
	return nil
}

func bindSocket(path string) (net.Listener, error) {
	// Not even for a moment open to others.
	mask := unix.Umask(0o177)
	defer unix.Umask(mask)
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on socket: %w", unwritable(err))
	}
	return listener, nil
}

// unwritable marks an error of a directory that cannot be written.
func unwritable(err error) error {
	for _, why := range []error{unix.EROFS, unix.EACCES, unix.EPERM} {
		if errors.Is(err, why) {
			return fmt.Errorf("%w: %w", errUnwritable, err)
		}
	}
	return err
}

// whenFree calls listen until nobody else has what it wants, or for as long as a
// roll-out may take to end the last agent.
func whenFree(ctx context.Context, log *slog.Logger, listen func() (net.Listener, error)) (net.Listener, error) {
	ctx, cancel := context.WithTimeout(ctx, listenWait)
	defer cancel()
	ticker := time.NewTicker(listenPoll)
	defer ticker.Stop()
	for told := false; ; told = true {
		listener, err := listen()
		if !errors.Is(err, errTaken) {
			return listener, err
		}
		if !told {
			log.Warn("waiting to listen", "error", err, "at-most", listenWait)
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-ticker.C:
		}
	}
}

// closeListener closes a listener that a server may have closed before.
func closeListener(l net.Listener) error {
	if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
