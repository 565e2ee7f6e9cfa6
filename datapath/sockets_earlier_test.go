// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/flows"
)

// Sockets that were there first are found with their owners, until others of the same
// ends come.
func TestEarlierSockets(t *testing.T) {
	t.Parallel()
	w := newSocketWorld(t)
	w.pod.Sysctl(t, "net/ipv6/conf/lo/disable_ipv6", "0")
	var opened []io.Closer
	err := w.cgroup.Do(w.pod, func() error {
		for _, listen := range []func() (io.Closer, error){
			func() (io.Closer, error) { return net.Listen("tcp4", "0.0.0.0:8080") },
			func() (io.Closer, error) { return net.Listen("tcp", "[::]:8081") },
			func() (io.Closer, error) { return net.ListenPacket("udp4", "127.0.0.1:8082") },
			func() (io.Closer, error) { return net.ListenPacket("udp6", "[::1]:8083") },
			func() (io.Closer, error) { return net.Dial("tcp4", "127.0.0.1:8080") },
			func() (io.Closer, error) { return net.Dial("tcp6", "[::1]:8081") },
			func() (io.Closer, error) { return net.Dial("tcp4", "127.0.0.1:8081") },
		} {
			c, err := listen()
			if err != nil {
				return err
			}
			opened = append(opened, c)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, c := range opened {
			c.Close()
		}
	}()
	s, end := w.open(SocketOptions{namespaces: func() []string {
		return []string{fmt.Sprint("/proc/self/fd/", w.pod.FD()), "/proc/self/fd/no-such"}
	}})
	defer end()

	want := []string{
		"tcp 0.0.0.0:8080", "tcp [::]:8081", "udp 127.0.0.1:8082", "udp [::1]:8083",
		"tcp 127.0.0.1:8080 of a client", "tcp 127.0.0.1:8081 of a client", "tcp [::1]:8081 of a client", // what the server has
		"tcp client of 127.0.0.1:8080", "tcp client of 127.0.0.1:8081", "tcp client of [::1]:8081",
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(w.described(s)))); diff != "" {
		t.Errorf("sockets (-want +got):\n%s", diff)
	}
	for name, socket := range w.described(s) {
		if socket.Now.Cgroup != w.cgroup.ID || !socket.Now.Since.IsZero() || !socket.Now.Until.IsZero() {
			t.Errorf("%s: got %+v, want cgroup %d since always", name, socket.Now, w.cgroup.ID)
		}
	}

	opened[0].Close()
	defer w.listen(8080).Close()
	if got := w.described(s)["tcp 0.0.0.0:8080"]; got.Now.Since.IsZero() {
		t.Errorf("another socket came: got %+v, want it since now", got)
	}
	if got := len(w.described(s)); got != len(want) {
		t.Errorf("another socket came: got %d sockets, want %d", got, len(want))
	}
}

// described are the sockets that are read, by their ends; ports that the kernel chose are
// left out.
func (w *socketWorld) described(s *Sockets) map[string]flows.Socket {
	w.Helper()
	all, err := s.all()
	if err != nil {
		w.Fatal(err)
	}
	found := make(map[string]flows.Socket)
	for _, socket := range all {
		name := map[uint8]string{flows.ProtocolTCP: "tcp ", flows.ProtocolUDP: "udp "}[socket.Protocol]
		switch {
		case !socket.Peer.IsValid():
			name += socket.Local.String()
		case socket.Local.Port() < 9000:
			name += socket.Local.String() + " of a client"
		default:
			name += "client of " + socket.Peer.String()
		}
		found[name] = socket
	}
	return found
}

// This process's own namespace is among those of all processes, which are told once.
func TestNamespacesOfProcesses(t *testing.T) {
	t.Parallel()
	all := namespacesOfProcesses()
	if len(all) == 0 || all[0] != "/proc/thread-self/ns/net" {
		t.Fatalf("got %v, want this process's own first", all)
	}
	for _, path := range all[1:] {
		if sameFile(path, "/proc/thread-self/ns/net") {
			t.Errorf("got %s, which is this process's own again", path)
		}
	}
}
