// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"context"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/ktest"
)

// processAttacks are those by what processes of pods are called and which sockets they open.
func processAttacks() []attack {
	return []attack{
		{name: "short connections as fast as a pod can open them", run: shortConnections, check: manyConnections},
		{name: "processes called by tabs, line breaks and escapes", run: vileNames, check: plainStatus},
	}
}

// shortConnections opens and resets them, to a server on the node.
func shortConnections(ctx context.Context, t *testing.T, w *world) {
	address := serve(t, w.node, w.hostile[0].Gateway, func(c net.Conn) { c.Close() })
	crowd(ctx, 4, func(ctx context.Context, _ int) {
		err := w.inside[0].Do(w.hostile[0].Namespace, func() error {
			for ctx.Err() == nil {
				c, err := dialer("").DialContext(ctx, "tcp4", address)
				if err != nil {
					continue
				}
				c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// manyConnections wants them to be counted as the pod's.
func manyConnections(t *testing.T, w *world, before, after samples) {
	t.Helper()
	name := "podmeter_tcp_connections_opened_total"
	if !w.known {
		name = "podmeter_sockets_total"
	}
	moreThan(name, 1000)(t, w, before, after)
}

// serve serves TCP connections until the test ends, and returns the address.
func serve(t *testing.T, in namespace, address string, each func(net.Conn)) string {
	t.Helper()
	var listener net.Listener
	err := in.Do(func() (err error) {
		listener, err = net.Listen("tcp4", net.JoinHostPort(address, "0"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go each(c)
		}
	}()
	return listener.Addr().String()
}

// vileNames are of threads, whose names sockets have. The kernel keeps 15 bytes.
var vile = []string{"a\tequal\t0", "b\nveth9 shop/x", "c\x1b[2J\x1b[31m", "d\xff\xfe", "e\u202egnp.exe", "f\r\r\r", "<script>", "{\"a\"=\"b\"}"}

// vileNames listens, connects and sends by threads of such names.
func vileNames(ctx context.Context, t *testing.T, w *world) {
	crowd(ctx, len(vile), func(ctx context.Context, number int) {
		err := w.inside[1].Do(w.hostile[1].Namespace, func() error {
			runtime.LockOSThread() // is not unlocked: the thread ends with its name
			if err := os.WriteFile("/proc/thread-self/comm", []byte(vile[number]), 0); err != nil {
				return err
			}
			listener, err := net.Listen("tcp4", ":0")
			if err != nil {
				return err
			}
			t.Cleanup(func() { listener.Close() }) // after the status was looked at
			for ctx.Err() == nil {
				c, err := dialer("").DialContext(ctx, "tcp4", listener.Addr().String())
				if err != nil {
					continue
				}
				c.Close()
				if u, err := net.Dial("udp4", w.hostile[1].Gateway+talkPort); err == nil {
					u.Write([]byte("x"))
					u.Close()
				}
				sleep(ctx, 100*time.Millisecond)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// plainStatus wants no name to have done anything to what is shown.
func plainStatus(t *testing.T, w *world, _, _ samples) {
	t.Helper()
	_, output := w.agent.podmeter(t, "status")
	scrape, err := w.agent.get("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{output, string(scrape)} {
		if strings.ContainsAny(text, "\x1b\r\u202e") || strings.ToValidUTF8(text, "") != text {
			t.Error("a name's control characters are in the status or the metrics")
		}
	}
	for line := range strings.Lines(output) {
		if strings.HasPrefix(line, "veth9") || strings.HasPrefix(line, "equal") {
			t.Errorf("the status has a forged line: %q", line)
		}
	}
	if w.known && !strings.Contains(output, "gnp.exe") {
		t.Errorf("no socket of these names is in the status, so this was no attack:\n%s", output)
	}
}

// falseCgroup opens sockets in cgroups that are called as the victim's is and are none.
func falseCgroup(ctx context.Context, t *testing.T, w *world) {
	address := serve(t, w.node, w.hostile[2].Gateway, func(c net.Conn) { c.Close() })
	given := w.cgroups.Child(t, "user.slice")
	if err := os.Chown(given.Path, 1000, 1000); err != nil { // as container engines without root have theirs
		t.Fatal(err)
	}
	places := []*ktest.Cgroup{w.cgroups.Child(t, "pod"+victimUID), given.Child(t, "kubepods").Child(t, "pod"+victimUID)}
	crowd(ctx, len(places), func(ctx context.Context, number int) {
		err := places[number].Do(w.hostile[2].Namespace, func() error {
			for ctx.Err() == nil {
				if c, err := dialer("").DialContext(ctx, "tcp4", address); err == nil {
					c.Close()
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// nothingOfTheVictim wants no connection to count as the victim's.
func nothingOfTheVictim(t *testing.T, _ *world, before, after samples) {
	t.Helper()
	if got := grown(before, after, "podmeter_tcp_connections_opened_total", "pod", victimName); got != 0 {
		t.Errorf("got %v connections of the victim, want none", got)
	}
	if got := grown(before, after, "podmeter_sockets_total", "outcome", "recorded"); got < 100 {
		t.Errorf("got %v sockets, want 100 at least", got)
	}
}
