// SPDX-License-Identifier: Apache-2.0

// Package flows is podmeter's domain: flow keys and counters, the attribution
// of drained flows to pods, peers and places, and the table of accumulated
// counters that the exporters read.
//
// Data enters as an [Epoch], once per drain. A [Publisher] finds the pod behind
// each observation point (a [Binder]) and the owner of each peer address (a
// [Directory]), and adds the result to a [Table]; exporters take a [Snapshot].
// Nothing here talks to a kernel, to Kubernetes or to Prometheus: who does so
// implements the small interfaces that this package declares.
//
// A Table may be used from any goroutine. A Publisher belongs to the one
// goroutine that drains; its Stats may be read from any. Nothing has to be
// closed.
package flows
