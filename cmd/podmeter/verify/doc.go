// SPDX-License-Identifier: Apache-2.0

// Package verify judges whether podmeter's numbers are what they must be: what is
// exported of each interface against the interface's own counters, and the invariants
// of all series. It is arithmetic alone: who uses it (podmeter verify, the demo, the
// tests in a cluster) reads both sides.
//
// A [Round] is given one [Observation] after the other until each interface was judged
// while no packet moved on it, and makes a [Report] of them. Nothing here is safe for
// concurrent use, and nothing has to be closed.
package verify
