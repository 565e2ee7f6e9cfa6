// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// spoolLimit is what each receiver's spool may have.
const spoolLimit = 4 << 20

// receivers are of remote write, each with its own way to answer once they are hostile.
type receivers struct {
	listener net.Listener
	server   http.Server
	hostile  atomic.Bool
	trapped  atomic.Int64 // connections of the agent to where no receiver is
	trap     string
	ended    chan struct{}
	serving  sync.WaitGroup
}

// ways are the paths of their URLs.
var ways = []string{"slow", "error", "redirect", "header", "body", "later"}

// newReceivers serves them on the node until the test ends.
func newReceivers(t *testing.T, w *world) *receivers {
	t.Helper()
	r := &receivers{ended: make(chan struct{})}
	r.trap = serve(t, w.node, "127.0.0.1", func(c net.Conn) {
		r.trapped.Add(1)
		c.Close()
	})
	err := w.node.Do(func() (err error) {
		r.listener, err = net.Listen("tcp4", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	r.server.Handler = r
	r.serving.Go(func() { _ = r.server.Serve(r.listener) })
	t.Cleanup(func() {
		close(r.ended)
		r.server.Close()
		r.serving.Wait()
	})
	return r
}

// flags are those by which an agent writes to all of them.
func (r *receivers) flags(w *world) (flags []string) {
	for _, way := range ways {
		flags = append(flags, "--remote-write-url", fmt.Sprintf("http://%s/%s", r.listener.Addr(), way))
	}
	return append(flags, "--remote-write-interval", "1s", "--remote-write-spool", w.spool(), "--remote-write-spool-limit", fmt.Sprint(spoolLimit))
}

func (w *world) spool() string { return filepath.Join(w.agent.folder, "spool") }

// ServeHTTP implements http.Handler.
func (r *receivers) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if !r.hostile.Load() {
		io.Copy(io.Discard, request.Body)
		w.Header().Set("X-Prometheus-Remote-Write-Samples-Written", "1")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	text := strings.Repeat("\x1b[2Jno ", 1<<12)
	switch strings.TrimPrefix(request.URL.Path, "/") {
	case "slow":
		select {
		case <-r.ended:
		case <-request.Context().Done():
		}
	case "error":
		http.Error(w, text, http.StatusInternalServerError)
	case "redirect":
		http.Redirect(w, request, "http://"+r.trap+"/latest/meta-data", http.StatusTemporaryRedirect)
	case "header":
		endless(w, "HTTP/1.1 200 OK\r\nX: ", text)
	case "body":
		endless(w, "HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n", fmt.Sprintf("%x\r\n%s\r\n", len(text), text))
	case "later":
		w.Header().Set("Retry-After", "99999999999999999999")
		w.WriteHeader(http.StatusTooManyRequests)
	}
}

// endless answers without an end.
func endless(w http.ResponseWriter, first, then string) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = io.WriteString(c, strings.ReplaceAll(first, "\x1b", ""))
	for err == nil {
		_, err = io.WriteString(c, then)
	}
}

// attack is the row of all ways.
func (r *receivers) attack() attack {
	return attack{name: "receivers of remote write that hang, fail, redirect, answer without an end, ask for years",
		run: func(context.Context, *testing.T, *world) { r.hostile.Store(true) },
		check: func(t *testing.T, w *world, before, after samples) {
			if n := r.trapped.Load(); n > 0 {
				t.Errorf("a redirect was followed to where no receiver is, %d times", n)
			}
			if got := grown(before, after, "podmeter_remote_write_requests_total", "outcome", "retried"); got < 3 {
				t.Errorf("got %v requests that failed, want 3 at least", got)
			}
			if size := sizeOf(t, w.spool()); size > len64(ways)*spoolLimit {
				t.Errorf("the spool has %d bytes, want at most %d a receiver", size, spoolLimit)
			}
		}}
}

func len64[T any](list []T) int64 { return int64(len(list)) }

// sizeOf is the bytes of all files in a folder.
func sizeOf(t *testing.T, folder string) (size int64) {
	t.Helper()
	err := filepath.WalkDir(folder, func(_ string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}
