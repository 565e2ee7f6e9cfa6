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

	"golang.org/x/sys/unix"
)

const (
	// listenWait is how long a busy port is waited for: a roll-out starts the
	// next agent while the last one still ends.
	listenWait = 60 * time.Second
	listenPoll = 200 * time.Millisecond
)

// listenTCP listens, and waits while another process has the port.
func listenTCP(ctx context.Context, address string, log *slog.Logger) (net.Listener, error) {
	ctx, cancel := context.WithTimeout(ctx, listenWait)
	defer cancel()
	ticker := time.NewTicker(listenPoll)
	defer ticker.Stop()
	for told := false; ; told = true {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err == nil || !errors.Is(err, unix.EADDRINUSE) {
			return listener, err
		}
		if !told {
			log.Warn("another process has the port, waiting for it to be free", "listen", address, "at-most", listenWait)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w; 'ss -ltnp' shows by whom, --listen chooses another", err)
		case <-ticker.C:
		}
	}
}

// listenSocket listens on a unix socket that only its owner may use. A socket
// that nobody answers on any more is replaced.
func listenSocket(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make directory of socket: %w", err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		return nil, errors.Join(fmt.Errorf("another agent answers at %s: stop it, or choose another --socket", path), conn.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("replace old socket: %w", err)
	}
	// Not even for a moment open to others.
	mask := unix.Umask(0o177)
	listener, err := net.Listen("unix", path)
	unix.Umask(mask)
	if err != nil {
		return nil, fmt.Errorf("listen on socket: %w", err)
	}
	return listener, nil
}

// closeListener closes a listener that a server may have closed before.
func closeListener(l net.Listener) error {
	if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
