// SPDX-License-Identifier: Apache-2.0

// Package metrics exports podmeter's counters to Prometheus.
//
// An [Exporter] owns a registry of its own. At every scrape it takes one
// snapshot of the table from its [Source], so that all families are of the same
// moment and the identities between them hold, and the agent's own values. A
// [Server] serves them together with health and readiness, with TLS and basic
// authentication if a web configuration file says so.
//
// Both are safe for concurrent use. An Exporter has nothing to be closed; a
// Server ends when the context of [Server.Serve] does, and Serve returns only
// then. The names of all metrics and what they mean are in docs/METRICS.md.
package metrics
