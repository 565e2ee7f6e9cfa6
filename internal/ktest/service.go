// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The addresses of a [ServiceNode].
const (
	Service4, Service6 = "10.96.0.10", "2001:db8:96::10"
	Client4, Client6   = "10.1.1.2", "2001:db8:1:1::2"
	Blue4, Blue6       = "10.1.2.2", "2001:db8:1:2::2"
	Green4, Green6     = "10.1.3.2", "2001:db8:1:3::2"
)

// ServiceNode is a node that translates a Service's addresses as kube-proxy does,
// with a pod that is its client and two that are its backends. The port 80 goes to
// port 8080 of Blue, 81 to that of Green, of TCP and UDP. Their interfaces on the node
// are veth-client, veth-blue and veth-green.
type ServiceNode struct {
	Node, Client, Blue, Green *Namespace
}

// NewServiceNode makes one, whose backends send back what they get. It skips the test,
// with a reason, on a kernel without nfnetlink, also under REQUIRE_KERNEL=1, and where nft is
// not installed.
func NewServiceNode(tb testing.TB) *ServiceNode {
	tb.Helper()
	Privileged(tb)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		tb.Skip("kernel without nfnetlink")
	}
	if err == nil {
		unix.Close(fd)
	}
	Command(tb, "nft", "nftables")
	s := &ServiceNode{Node: NewNamespace(tb)}
	for setting, value := range map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1", "net/ipv6/conf/default/accept_dad": "0",
	} {
		s.Node.Sysctl(tb, setting, value)
	}
	for i, pod := range []struct {
		name string
		is   **Namespace
	}{{"client", &s.Client}, {"blue", &s.Blue}, {"green", &s.Green}} {
		*pod.is = s.pod(tb, pod.name, i+1)
	}
	s.Blue.echo(tb)
	s.Green.echo(tb)
	s.Translate(tb, Blue4, Blue6)
	return s
}

// pod makes the pod with that number.
func (s *ServiceNode) pod(tb testing.TB, name string, number int) *Namespace {
	pod, device := NewNamespace(tb), "veth-"+name
	pod.Sysctl(tb, "net/ipv6/conf/default/accept_dad", "0")
	s.Node.Veth(tb, device, pod, "eth0")
	for _, prefix := range []string{fmt.Sprintf("10.1.%d.", number), fmt.Sprintf("2001:db8:1:%d::", number)} {
		bits := "/24"
		if strings.Contains(prefix, ":") {
			bits = "/64"
		}
		s.Node.Address(tb, device, prefix+"1"+bits)
		pod.Address(tb, "eth0", prefix+"2"+bits)
		err := pod.Do(func() error { return netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(prefix + "1")}) })
		if err != nil {
			tb.Fatalf("add default route: %v", err)
		}
	}
	return pod
}

// Translate makes connections to port 80 that begin from now on go to other addresses.
func (s *ServiceNode) Translate(tb testing.TB, ipv4, ipv6 string) {
	tb.Helper()
	var rules strings.Builder
	rules.WriteString("table inet service\ndelete table inet service\ntable inet service {\n" +
		"chain prerouting { type nat hook prerouting priority dstnat;\n")
	for _, to := range []struct{ port, ipv4, ipv6 string }{{"80", ipv4, ipv6}, {"81", Green4, Green6}} {
		for _, protocol := range []string{"tcp", "udp"} {
			fmt.Fprintf(&rules, "ip daddr %s %s dport %s dnat ip to %s:8080\n", Service4, protocol, to.port, to.ipv4)
			fmt.Fprintf(&rules, "ip6 daddr %s %s dport %s dnat ip6 to [%s]:8080\n", Service6, protocol, to.port, to.ipv6)
		}
	}
	rules.WriteString("}\n}\n")
	nft := exec.Command("nft", "-f", "-")
	var output strings.Builder
	nft.Stdin, nft.Stdout, nft.Stderr = strings.NewReader(rules.String()), &output, &output
	if err := s.Node.Do(nft.Run); err != nil {
		tb.Fatalf("nft: %v: %s", err, &output)
	}
}

// echo sends back what comes to port 8080.
func (ns *Namespace) echo(tb testing.TB) {
	tb.Helper()
	var listener net.Listener
	var socket net.PacketConn
	err := ns.Do(func() (err error) {
		if listener, err = net.Listen("tcp", ":8080"); err == nil {
			socket, err = net.ListenPacket("udp", ":8080")
		}
		return err
	})
	if err != nil {
		tb.Fatalf("listen: %v", err)
	}
	ended := make(chan struct{}, 2)
	tb.Cleanup(func() {
		listener.Close()
		socket.Close()
		<-ended
		<-ended
	})
	go func() { echoStreams(listener); ended <- struct{}{} }()
	go func() { echoDatagrams(socket); ended <- struct{}{} }()
}

// echoStreams serves one connection after the other.
func echoStreams(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		io.Copy(conn, conn)
		conn.Close()
	}
}

func echoDatagrams(socket net.PacketConn) {
	buffer := make([]byte, 2048)
	for {
		n, from, err := socket.ReadFrom(buffer)
		if err != nil {
			return
		}
		socket.WriteTo(buffer[:n], from)
	}
}

// Talk sends bytes from the client to an address and waits until they are back. It
// returns the client's own address. The port it sends from is any if 0.
func (s *ServiceNode) Talk(tb testing.TB, network, address string, port, bytes int) netip.AddrPort {
	tb.Helper()
	dialer := net.Dialer{}
	switch {
	case port != 0 && network == "udp":
		dialer.LocalAddr = &net.UDPAddr{Port: port}
	case port != 0:
		dialer.LocalAddr = &net.TCPAddr{Port: port}
	}
	var from netip.AddrPort
	err := s.Client.Do(func() error {
		conn, err := dialer.Dial(network, address)
		if err != nil {
			return err
		}
		defer conn.Close()
		from = netip.MustParseAddrPort(conn.LocalAddr().String())
		if _, err := conn.Write(make([]byte, bytes)); err != nil {
			return err
		}
		_, err = io.ReadFull(conn, make([]byte, bytes))
		return err
	})
	if err != nil {
		tb.Fatalf("talk to %s by %s: %v", address, network, err)
	}
	return from
}
