// SPDX-License-Identifier: Apache-2.0

// Package remotewrite sends metrics to receivers of Prometheus remote write, for nodes
// that cannot be scraped: protocol 2.0, and 1.0 where a receiver does not know that.
//
// A [Writer] gathers at an interval, as a scrape would, and appends what it got to a
// spool on disk, one for each receiver; a sender takes requests from it in their order.
// So an outage costs nothing but disk, and a restart goes on where the last process
// ended. A series that is no more, and at the end all of them, get a staleness marker.
//
// All methods may be called from any goroutine.
package remotewrite
