// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var discard = slog.New(slog.DiscardHandler)

func TestListenWaitsUntilFree(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "agent.sock")
	for _, test := range []struct {
		name   string
		listen func(context.Context) (net.Listener, error)
	}{
		{"socket", func(ctx context.Context) (net.Listener, error) { return listenSocket(ctx, socket, discard) }},
		{"port", func() func(context.Context) (net.Listener, error) {
			address := "127.0.0.1:0"
			return func(ctx context.Context) (net.Listener, error) {
				l, err := listenTCP(ctx, address, discard)
				if err == nil {
					address = l.Addr().String()
				}
				return l, err
			}
		}()},
	} {
		t.Run(test.name, func(t *testing.T) {
			first, err := test.listen(t.Context())
			if err != nil {
				t.Fatalf("first: %v", err)
			}
			short, cancel := context.WithTimeout(t.Context(), listenPoll/2)
			defer cancel()
			if _, err := test.listen(short); !errors.Is(err, errTaken) {
				t.Errorf("while it is taken: got %v, want %v", err, errTaken)
			}
			time.AfterFunc(listenPoll, func() { first.Close() })
			second, err := test.listen(t.Context())
			if err != nil {
				t.Fatalf("when it is free: %v", err)
			}
			second.Close()
		})
	}
}

func TestListenSocketIsTheOwnersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "agent.sock")
	listener, err := listenSocket(t.Context(), path, discard)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", info.Mode(), err)
	}
}

func TestListenSocketReplacesOnlySockets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false) // as a kill leaves it
	stale.Close()
	listener, err := listenSocket(t.Context(), path, discard)
	if err != nil {
		t.Fatalf("over a stale socket: %v", err)
	}
	listener.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenSocket(t.Context(), path, discard); !IsUsage(err) {
		t.Errorf("over a file: got %v, want a usage error", err)
	}
	if content, err := os.ReadFile(path); errors.Is(err, fs.ErrNotExist) || string(content) != "precious" {
		t.Errorf("the file: got %q, %v, want it as it was", content, err)
	}
}

// A socket that takes no more connections is alive, and stays.
func TestListenSocketLeavesABusyOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	busy, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(busy)
	if err := errors.Join(unix.Bind(busy, &unix.SockaddrUnix{Name: path}), unix.Listen(busy, 0)); err != nil {
		t.Fatal(err)
	}
	for { // until its queue is full, as nobody accepts
		conn, err := net.Dial("unix", path)
		if errors.Is(err, unix.EAGAIN) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), listenPoll/2)
	defer cancel()
	if _, err := listenSocket(short, path, discard); !errors.Is(err, errTaken) {
		t.Errorf("got %v, want %v", err, errTaken)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the socket: got %v, %v, want it as it was", after, err)
	}
}

func TestRefreshHostFromSeveralGoroutines(t *testing.T) {
	config := Defaults()
	config.Identity = IdentityNone
	i, err := newIdentities(config, "test", discard)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() { i.refreshHost(time.Unix(int64(n)*60, 0)) })
	}
	all.Wait()
}
