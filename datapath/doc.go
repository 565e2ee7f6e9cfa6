// SPDX-License-Identifier: Apache-2.0

// Package datapath runs the kernel side: it loads, sizes and pins the maps,
// attaches the programs to the interfaces of pods, or to uplinks, lets go of them,
// and drains the maps exactly, handing [flows.Epoch] values to a [Sink].
//
// A [Meter] is made by [New], driven by [Meter.Run] and ended by [Meter.Close];
// Run has returned before Close is called; programs and maps stay for the next
// meter, or for [Uninstall]. Drain, Fresh, LastDrain, Interfaces, Refusals and
// Outcomes may be called from any goroutine meanwhile. The one lifetime trap: the
// records of an epoch belong to the meter and are overwritten by the next drain, so
// a sink copies what it keeps.
package datapath
