// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Of linux/inet_diag.h and linux/sock_diag.h.
const (
	sockDiagByFamily    = 20
	inetDiagCgroupID    = 21 // an attribute, from Linux 5.9 on
	inetDiagRequestSize = 56
	inetDiagMessageSize = 72
	soNetnsCookie       = 71 // a socket option, from Linux 5.14 on
)

// anyState are all states of a socket but that of one that only waits for its address to
// be used again, which belongs to nobody.
const anyState = ^uint32(1 << unix.BPF_TCP_TIME_WAIT)

// readEarlier finds the sockets that were there before the programs that see them come:
// those of this process's network namespace and, where the machine's processes are seen
// and their namespaces may be entered, of all. It is for the start: what it finds is not
// followed.
func (s *Sockets) readEarlier() {
	s.earlier = make(map[bpf.SocketSocketKey]flows.Socket)
	entered, refused := 0, 0
	for _, namespace := range s.options.namespaces() {
		err := within(namespace, s.diagnose)
		switch {
		case err == nil:
			entered++
		case errors.Is(err, unix.EPERM), errors.Is(err, fs.ErrPermission):
			refused++
		case !errors.Is(err, fs.ErrNotExist): // its process has ended
			s.log.Warn("look for sockets that are there", "error", err)
		}
	}
	s.log.Debug("looked for sockets that are there", "namespaces", entered, "not-allowed", refused, "sockets", len(s.earlier))
}

// namespacesOfProcesses returns a path of each network namespace that a process is in.
func namespacesOfProcesses() (paths []string) {
	found, _ := filepath.Glob("/proc/[0-9]*/ns/net") // the pattern is right
	seen := make(map[string]bool)
	for _, path := range append([]string{"/proc/thread-self/ns/net"}, found...) {
		if name, err := os.Readlink(path); err == nil && !seen[name] {
			seen[name] = true
			paths = append(paths, path)
		}
	}
	return paths
}

// within runs a function in a network namespace. That of this process needs no right.
func within(namespace string, f func() error) error {
	if sameFile(namespace, "/proc/thread-self/ns/net") {
		return f()
	}
	handle, err := os.Open(namespace)
	if err != nil {
		return err
	}
	defer handle.Close()
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		if err := unix.Setns(int(handle.Fd()), unix.CLONE_NEWNET); err != nil {
			failed <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		failed <- f()
	}()
	return <-failed
}

func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}

// diagnose adds the sockets of the thread's network namespace.
func (s *Sockets) diagnose() error {
	cookie, err := netnsCookie()
	if err != nil {
		return err
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			request := nl.NewNetlinkRequest(sockDiagByFamily, unix.NLM_F_DUMP)
			request.AddRawData(diagRequest(family, protocol))
			messages, err := request.Execute(unix.NETLINK_INET_DIAG, 0)
			if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) { // which has most of them
				return fmt.Errorf("ask the kernel for sockets: %w", err)
			}
			for _, message := range messages {
				if len(s.earlier) >= int(s.options.MaxSockets) {
					return nil
				}
				if key, socket, ok := parseDiag(message, protocol); ok {
					key.Netns = cookie
					s.earlier[key] = socket
				}
			}
		}
	}
	return nil
}

// netnsCookie is by which programs tell the thread's network namespace.
func netnsCookie() (uint64, error) {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(socket)
	cookie, err := unix.GetsockoptUint64(socket, unix.SOL_SOCKET, soNetnsCookie)
	if err != nil {
		return 0, fmt.Errorf("ask for the cookie of the network namespace: %w", err)
	}
	return cookie, nil
}

// diagRequest is a struct inet_diag_req_v2 for all sockets of a kind.
func diagRequest(family, protocol uint8) []byte {
	request := make([]byte, inetDiagRequestSize)
	request[0], request[1] = family, protocol
	binary.NativeEndian.PutUint32(request[4:], anyState)
	return request
}

// parseDiag reads a struct inet_diag_msg and what follows; ok is false if it does not say
// whose the socket is, or if that has no port.
func parseDiag(b []byte, protocol uint8) (key bpf.SocketSocketKey, socket flows.Socket, ok bool) {
	if len(b) < inetDiagMessageSize {
		return key, socket, false
	}
	family, state := b[0], b[1]
	local, peer := diagEnd(family, b[4:6], b[8:24]), diagEnd(family, b[6:8], b[24:40])
	attributes, err := nl.ParseRouteAttr(b[inetDiagMessageSize:])
	if err != nil || local.Port() == 0 {
		return key, socket, false
	}
	for _, a := range attributes {
		if a.Attr.Type == inetDiagCgroupID && len(a.Value) >= 8 {
			socket.Now.Cgroup = binary.NativeEndian.Uint64(a.Value)
		}
	}
	if protocol == unix.IPPROTO_UDP || state == unix.BPF_TCP_LISTEN {
		peer = netip.AddrPort{}
	}
	socket.Protocol, socket.Owners, socket.Local, socket.Peer = protocol, 1, local, peer
	key.Protocol = protocol
	key.Local, key.LocalPort = encodeEnd(local)
	key.Peer, key.PeerPort = encodeEnd(peer)
	return key, socket, socket.Now.Cgroup != 0
}

// diagEnd returns an end of a socket: port and address in the network's order of bytes.
func diagEnd(family uint8, port, address []byte) netip.AddrPort {
	var a netip.Addr
	if family == unix.AF_INET {
		a = netip.AddrFrom4([4]byte(address[:4]))
	} else {
		a = netip.AddrFrom16([16]byte(address)).Unmap()
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
}

// encodeEnd is the reverse of decodeEnd.
func encodeEnd(end netip.AddrPort) (address [16]byte, port uint16) {
	if !end.IsValid() {
		return address, 0
	}
	return end.Addr().As16(), hostOrder(end.Port())
}
