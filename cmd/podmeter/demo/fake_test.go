// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/verify"
	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink"
	"go.yaml.in/yaml/v3"
)

// fakeAgent says what the kernel's counters say, as an agent without a fault
// would: it stands in where the demo itself is tested.
type fakeAgent struct {
	options AgentOptions
	fault   string // what it does wrong
	node    *namespace
	pods    map[string]verify.Pod // by address

	mu    sync.Mutex
	seen  map[string]verify.Interface
	last  map[string]verify.Pair
	bound map[string]verify.Pod // by device
	first bool
}

// The faults of a fake agent.
const (
	faultByte  = "a byte too many"
	faultError = "an error while it runs"
	faultStart = "an error at its start"
	faultHang  = "it does not end"
)

func newFakeAgent(options AgentOptions, fault string) (Agent, error) {
	if fault == faultStart {
		return nil, errors.New("no such feature")
	}
	text, err := os.ReadFile(options.StaticFile)
	if err != nil {
		return nil, err
	}
	var file staticFile
	if err := yaml.Unmarshal(text, &file); err != nil {
		return nil, err
	}
	node, err := currentNamespace("the node")
	a := &fakeAgent{
		options: options, fault: fault, node: node, pods: make(map[string]verify.Pod), first: true,
		seen: make(map[string]verify.Interface), last: make(map[string]verify.Pair), bound: make(map[string]verify.Pod),
	}
	for _, p := range file.Pods {
		for _, address := range p.IPs {
			a.pods[address.String()] = verify.Pod{Namespace: p.Namespace, Name: p.Name}
		}
	}
	return a, err
}

// Run serves metrics and leaves its pins behind, as one that is killed does.
func (a *fakeAgent) Run(ctx context.Context) error {
	if err := os.Mkdir(a.options.PinPath, 0o700); err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := a.Metrics(r.Context())
		w.Write(text)
	})}
	served := make(chan error)
	go func() { served <- server.Serve(a.options.Listener) }()
	var err error
	if a.fault == faultError {
		ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		<-ctx.Done()
		err = errors.New("the kernel went away")
	} else {
		<-ctx.Done()
	}
	if a.fault == faultHang {
		select {}
	}
	server.Close()
	<-served
	return err
}

// read takes a reading of all pods' interfaces.
func (a *fakeAgent) read() error {
	links, err := a.node.links.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		device := l.Attrs().Name
		if l.Type() != "veth" || device == uplink {
			continue
		}
		own := ownOf(l)
		if _, ok := a.seen[device]; !ok {
			a.meet(device, l, own)
		}
		a.last[device] = own
	}
	a.first = false
	return nil
}

func (a *fakeAgent) meet(device string, l netlink.Link, own verify.Pair) {
	routes, _ := a.node.links.RouteList(l, netlink.FAMILY_V4)
	for _, r := range routes {
		if pod, ok := a.pods[r.Dst.IP.String()]; ok {
			a.bound[device] = pod
			a.seen[device] = verify.Interface{
				Name: device, Index: l.Attrs().Index, Pod: pod, State: stateAttached,
				Before: own, Seeded: !a.first,
			}
		}
	}
}

// Drain takes a reading.
func (a *fakeAgent) Drain(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.read()
}

// exported is what the series of its pod have of a device.
func (a *fakeAgent) exported(device string) (exported verify.Pair) {
	i := a.seen[device]
	for d, c := range a.last[device] {
		if !i.Seeded {
			c = c.Sub(i.Before[d])
		}
		if a.fault == faultByte && i.Pod.Name == "api" {
			c.Bytes++
		}
		exported[d] = c
	}
	return exported
}

// Status takes a reading too: an interface that goes next has been counted to its last packet.
func (a *fakeAgent) Status(context.Context) (*verify.Agent, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.read(); err != nil {
		return nil, err
	}
	status := &verify.Agent{Earlier: make(map[verify.Pod]verify.Pair)}
	for device, i := range a.seen {
		if _, err := a.node.links.LinkByName(device); err == nil {
			i.Exported = a.exported(device)
			status.Interfaces = append(status.Interfaces, i)
		} else {
			status.Earlier[i.Pod] = a.exported(device)
		}
	}
	return status, nil
}

func (a *fakeAgent) Metrics(context.Context) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	lines := map[string][]string{verify.ConservationError: {" 0"}, "podmeter_lost_bytes_total": {`{reason="no_interface"} 0`}}
	for device := range a.seen {
		for d, c := range a.exported(device) {
			a.write(lines, a.bound[device], flows.Direction(d), verify.Bytes, c.Bytes)
			a.write(lines, a.bound[device], flows.Direction(d), verify.Packets, c.Packets)
		}
	}
	var b strings.Builder
	for name := range maps.Keys(lines) {
		fmt.Fprintf(&b, "# TYPE %s counter\n%s%s\n", name, name, strings.Join(lines[name], "\n"+name))
	}
	return []byte(b.String()), nil
}

// write has a pod's counter thrice: whole, as a flow of IPv6 and one of IPv4, and
// the latter as external.
func (a *fakeAgent) write(lines map[string][]string, pod verify.Pod, d flows.Direction, u verify.Unit, n uint64) {
	say := func(family, labels string, n uint64) {
		name := verify.Series(family, d, u)
		lines[name] = append(lines[name], fmt.Sprintf(`{namespace=%q,pod=%q%s} %d`, pod.Namespace, pod.Name, labels, n))
	}
	say(verify.FamilyPod, "", n)
	say(verify.FamilyFlow, `,peer_kind="pod",peer_namespace="shop",peer="web",peer_ip="fd00::1"`, n/3)
	say(verify.FamilyFlow, `,peer_kind="external",peer="",peer_ip="`+netip.MustParseAddr("198.51.100.10").String()+`"`, n-n/3)
	if u == verify.Bytes {
		say(verify.FamilyExternal, `,country="CH",city="Zürich"`, n-n/3)
	}
}
