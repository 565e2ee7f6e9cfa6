// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/verify"
	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink"
)

// world is a node with pods and an internet, all in namespaces of their own.
type world struct {
	node     *namespace
	internet *namespace
	pods     map[string]*pod // by namespace/name
}

// pod is a namespace with one veth to the node.
type pod struct {
	podPlan
	*namespace
}

// newWorld builds the node's side and the internet. It takes the node over, also
// on an error.
func newWorld(node *namespace) (*world, error) {
	w := &world{node: node, pods: make(map[string]*pod)}
	err := node.set(nodeParameters())
	if err == nil {
		w.internet, err = newNamespace("the internet")
	}
	if err == nil {
		err = w.connect()
	}
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// nodeParameters make the node route, and keep it from asking about addresses
// and routers of which everything is known.
func nodeParameters() []sysctl {
	return append(quietParameters(),
		sysctl{"ipv4/conf/all/rp_filter", "0"},
		sysctl{"ipv4/conf/default/rp_filter", "0"},
		sysctl{"ipv4/ip_forward", "1"},
		sysctl{"ipv6/conf/all/forwarding", "1"},
		sysctl{"ipv6/conf/default/forwarding", "1"},
	)
}

// quietParameters keep a namespace from sending what nobody asked for: a device
// speaks IPv6, with its multicast reports, only where it is meant to.
func quietParameters() []sysctl {
	return []sysctl{
		{"ipv6/conf/default/disable_ipv6", "1"},
		{"ipv6/conf/default/accept_ra", "0"},
		{"ipv6/conf/default/router_solicitations", "0"},
		{"ipv6/conf/default/accept_dad", "0"},
	}
}

// connect joins the internet to the node: each is the other's only router.
func (w *world) connect() error {
	if err := w.internet.set(quietParameters()); err != nil {
		return err
	}
	there, here, err := w.internet.veth(podDevice, uplink)
	if err == nil {
		here, err = w.internet.move(here, w.node)
	}
	if err != nil {
		return err
	}
	errs := []error{w.node.ready(uplink), w.internet.ready(podDevice), w.node.speakIPv6(uplink), w.internet.speakIPv6(podDevice)}
	nodeEnd, router := nodeAddresses(), routerAddresses()
	for i, everything := range []string{"0.0.0.0/0", "::/0"} {
		bits := nodeEnd[i].BitLen() - 2
		errs = append(errs,
			w.node.address(here, netip.PrefixFrom(nodeEnd[i], bits)),
			w.internet.address(there, netip.PrefixFrom(router[i], bits)),
			w.node.neighbour(here, router[i], there.Attrs().HardwareAddr),
			w.internet.neighbour(there, nodeEnd[i], here.Attrs().HardwareAddr),
			w.node.route(here, network(netip.MustParsePrefix(everything)), router[i]),
			w.internet.route(there, network(podRanges()[i]), nodeEnd[i]))
	}
	return errors.Join(append(errs, w.populate())...)
}

// populate gives the internet its addresses.
func (w *world) populate() error {
	loopback, err := w.internet.links.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback of the internet: %w", err)
	}
	for _, address := range internetAddresses() {
		err = errors.Join(err, w.internet.address(loopback, netip.PrefixFrom(address, address.BitLen())))
	}
	return err
}

// addPod makes a pod and connects it to the node.
func (w *world) addPod(plan podPlan) (*pod, error) {
	n, err := newNamespace(plan.String())
	if err != nil {
		return nil, err
	}
	p := &pod{plan, n}
	if err := w.wire(p); err != nil {
		return nil, errors.Join(fmt.Errorf("make pod %s: %w", plan, err), w.node.remove(plan.device()), n.close())
	}
	w.pods[plan.String()] = p
	return p, nil
}

// wire connects a pod as point-to-point CNI plugins do: the veth is made in the
// pod and its one end moved to the node, which routes each of the pod's addresses
// to it; the pod routes everything to a link-local gateway there.
func (w *world) wire(p *pod) error {
	// The node's settings of IPv4 are every new namespace's.
	if err := p.set(append(quietParameters(), sysctl{"ipv4/ip_forward", "0"})); err != nil {
		return err
	}
	there, here, err := p.veth(podDevice, p.device())
	if err != nil {
		return err
	}
	if err := errors.Join(p.configure(there, here), p.hurry()); err != nil {
		return err
	}
	here, err = p.move(here, w.node)
	if err == nil {
		err = errors.Join(w.node.ready(p.device()), p.ready(podDevice))
	}
	if err == nil && p.hasIPv6() {
		err = w.node.speakIPv6(p.device())
	}
	for _, address := range p.addresses {
		err = errors.Join(err,
			w.node.route(here, host(address), netip.Addr{}),
			w.node.neighbour(here, address, there.Attrs().HardwareAddr))
	}
	return err
}

// configure gives the pod its addresses and its routes to the end of the veth
// that the node will have.
func (p *pod) configure(there, here netlink.Link) (err error) {
	if p.hasIPv6() {
		err = p.speakIPv6(podDevice)
	}
	everything := []string{"0.0.0.0/0", "::/0"}
	for i, address := range p.addresses {
		err = errors.Join(err,
			p.address(there, netip.PrefixFrom(address, address.BitLen())),
			p.neighbour(there, gateways()[i], here.Attrs().HardwareAddr),
			p.route(there, network(netip.MustParsePrefix(everything[i])), gateways()[i]))
	}
	return err
}

const (
	hurried      = 3 // datagrams
	hurryEvery   = 2 * time.Millisecond
	hurriedAfter = 5 * time.Second
)

// hurry sends datagrams before the node has the pod's interface: they are lost,
// and the interface counts them, so that it has passed something before anybody
// could meter it. The first ones may come before the device is ready.
func (p *pod) hurry() error {
	ctx, cancel := context.WithTimeout(context.Background(), hurriedAfter)
	defer cancel()
	to := netip.AddrPortFrom(gateways()[0], dnsPort)
	c, err := p.dial(ctx, new(net.Dialer), "udp", to.String())
	if err != nil {
		return fmt.Errorf("send first datagrams: %w", err)
	}
	defer c.Close()
	ticker := time.NewTicker(hurryEvery)
	defer ticker.Stop()
	for {
		own, err := p.ledgers()
		if err != nil || own[p.device()][flows.Transmit].Packets >= hurried {
			return err
		}
		if _, err := c.Write(make([]byte, 42)); err != nil {
			return fmt.Errorf("send first datagrams: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("send first datagrams: none went out: %w", ctx.Err())
		case <-ticker.C:
		}
	}
}

// removePod deletes a pod that no packet reaches any more.
//
// What the interface had counted must be read before: the message of its
// deletion no longer has what the other end of a veth sent, as veth_dellink cuts
// the ends apart first (drivers/net/veth.c).
func (w *world) removePod(p *pod) error {
	delete(w.pods, p.String())
	return errors.Join(w.node.remove(p.device()), p.close())
}

// close takes the world down. It may be called again.
func (w *world) close() error {
	var errs []error
	for _, p := range w.pods {
		errs = append(errs, w.node.remove(p.device()), p.close())
	}
	clear(w.pods)
	if w.internet != nil {
		errs = append(errs, w.node.remove(uplink), w.internet.close())
		w.internet = nil
	}
	return errors.Join(append(errs, w.node.close())...)
}

// devices are the interfaces of living pods, in order.
func (w *world) devices() []string {
	var names []string
	for _, p := range w.pods {
		names = append(names, p.device())
	}
	slices.Sort(names)
	return names
}

// ledgers reads the counters of the pods' interfaces, by device.
func (w *world) ledgers() (map[string]verify.Pair, error) {
	all, err := w.node.ledgers()
	if err != nil {
		return nil, err
	}
	own := make(map[string]verify.Pair, len(w.pods))
	for _, device := range w.devices() {
		l, ok := all[device]
		if !ok {
			return nil, fmt.Errorf("read counters of %s: it is gone", device)
		}
		own[device] = l
	}
	return own, nil
}

// kernel reads the counters of all interfaces of the node.
func (w *world) kernel() (verify.Kernel, error) { return w.node.kernel() }

// quietFor is how long no interface may have counted anything: more than TCP
// delays an acknowledgement.
const quietFor = 250 * time.Millisecond

// quiet waits until two readings of the devices' counters are equal, and returns
// them.
func (w *world) quiet(ctx context.Context, devices ...string) (map[string]verify.Pair, error) {
	ticker := time.NewTicker(quietFor)
	defer ticker.Stop()
	var last map[string]verify.Pair
	for {
		all, err := w.ledgers()
		if err != nil {
			return nil, err
		}
		now := make(map[string]verify.Pair, len(devices))
		for _, device := range devices {
			now[device] = all[device]
		}
		if maps.Equal(last, now) {
			return now, nil
		}
		last = now
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait until no packet moves: %w", context.Cause(ctx))
		case <-ticker.C:
		}
	}
}
