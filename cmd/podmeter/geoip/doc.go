// SPDX-License-Identifier: Apache-2.0

// Package geoip places the rows of a Prometheus query on the map: it asks an
// instant query again and again, looks up where the address in one label of each
// row is, and serves the rows as the gauge geo_ip with place and value.
//
// It is independent of the agent and of its metrics: any query will do that has
// addresses in a label. A [Service] owns a listener, databases and the last good
// answer, which it serves until there is another one, together with its age: a
// Prometheus that is away leaves no hole. Rows that are not in the last answer
// are gone.
//
// [Service.Run] ends with its context and closes everything; a Service that is
// not run has to be closed. What the metrics mean is in docs/METRICS.md.
package geoip
