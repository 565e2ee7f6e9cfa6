// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"errors"
	"net/netip"
	"time"
)

const (
	httpPort = 8080
	kibibyte = 1024
)

// at sends n requests a second.
func at(n float64) time.Duration { return time.Duration(float64(time.Second) / n) }

func get(from *namespace, to netip.Addr, response int, every time.Duration) *exchange {
	return &exchange{run: fetch, protocol: "TCP", from: from, to: netip.AddrPortFrom(to, httpPort),
		response: response, every: every}
}

func post(from *namespace, to netip.Addr, request int, every time.Duration) *exchange {
	return &exchange{run: fetch, protocol: "TCP", from: from, to: netip.AddrPortFrom(to, httpPort),
		request: request, response: 2, every: every}
}

func resolve(from *namespace, to netip.Addr, every time.Duration) *exchange {
	return &exchange{run: query, protocol: "UDP", from: from, to: netip.AddrPortFrom(to, dnsPort),
		request: 42, response: 118, every: every}
}

func ping(from *namespace, to netip.Addr) *exchange {
	return &exchange{run: echo, protocol: "ICMP", from: from, to: netip.AddrPortFrom(to, 0),
		request: 56, every: at(2)}
}

// sentFrom lets the exchange come from one of several addresses.
func (e *exchange) sentFrom(source netip.Addr) *exchange {
	e.source = source
	return e
}

// serveAll starts the servers of the internet and of the pods that are there
// from the start.
func (t *traffic) serveAll(w *world) error {
	errs := []error{
		t.serveHTTP(w.internet, httpPort),
		t.serveUDP(w.internet, zurich, wellington),
	}
	for _, plan := range []podPlan{webPod(1), webPod(2), apiPod()} {
		errs = append(errs, t.serveHTTP(w.pods[plan.String()].namespace, httpPort))
	}
	resolver := resolverPod()
	errs = append(errs, t.serveUDP(w.pods[resolver.String()].namespace, resolver.addresses...))
	return errors.Join(errs...)
}

// startAll starts what goes on during the whole demo: a few Mbit/s.
func (t *traffic) startAll(w *world) {
	t.startInside(w)
	t.startOutside(w)
}

// startInside is the traffic between pods, and of the node as their kubelet.
func (t *traffic) startInside(w *world) {
	in := func(p podPlan) *namespace { return w.pods[p.String()].namespace }
	client, api, dns := clientPod(), apiPod(), resolverPod().addresses[0]
	for replica := 1; replica <= 2; replica++ {
		web := webPod(replica)
		t.start(
			get(in(client), web.addresses[0], 12*kibibyte, at(4)),
			get(in(web), api.addresses[0], 3*kibibyte, at(3)),
			get(w.node, web.addresses[0], 2, at(1)),
			resolve(in(web), dns, at(4)),
			ping(in(client), web.addresses[0]))
	}
	t.start(
		get(in(client), api.addresses[1], 8*kibibyte, at(3)),
		resolve(in(client), dns, at(3)),
		ping(in(client), api.addresses[1]))
}

// startOutside is the traffic with the internet, both ways.
func (t *traffic) startOutside(w *world) {
	in := func(p podPlan) *namespace { return w.pods[p.String()].namespace }
	client, api := in(clientPod()), in(apiPod())
	t.start(
		get(client, zurich, 6*kibibyte, at(2)),
		get(client, tokyo, 256*kibibyte, at(2)), // large enough for GSO packets
		get(client, reykjavik, 64*kibibyte, at(2)),
		post(api, reykjavik, 24*kibibyte, at(2)),
		resolve(api, wellington, at(3)),
		resolve(in(resolverPod()), zurich, at(4)),
		ping(client, zurich),
		ping(api, wellington),
		get(w.internet, webPod(1).addresses[0], 20*kibibyte, at(3)).sentFrom(saoPaulo),
		get(w.internet, webPod(2).addresses[0], 20*kibibyte, at(2)).sentFrom(nairobi),
		get(w.internet, apiPod().addresses[1], 10*kibibyte, at(2)).sentFrom(wellington))
}

// startJob is what the batch job does while it runs.
func (t *traffic) startJob(job *pod) {
	t.start(
		post(job.namespace, nairobi, 192*kibibyte, at(3)),
		get(job.namespace, apiPod().addresses[0], 16*kibibyte, at(4)),
		resolve(job.namespace, resolverPod().addresses[0], at(4)))
}

// startReplica brings one more replica into use.
func (t *traffic) startReplica(w *world, web *pod) error {
	if err := t.serveHTTP(web.namespace, httpPort); err != nil {
		return err
	}
	client := w.pods[clientPod().String()]
	t.start(
		get(client.namespace, web.addresses[0], 12*kibibyte, at(4)),
		resolve(web.namespace, resolverPod().addresses[0], at(4)),
		get(w.internet, web.addresses[0], 20*kibibyte, at(2)).sentFrom(saoPaulo))
	return nil
}
