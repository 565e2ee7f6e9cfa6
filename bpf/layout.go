// SPDX-License-Identifier: Apache-2.0

package bpf

// Place returns the index of the one place in a totals array that a point and
// direction can have (TOTAL_PLACE in flow.h). Where another owns it, the totals
// are in the displaced hash.
func (k MeterTotalKey) Place() uint32 { return (k.Point<<1 | k.Direction) % totalPlaces }

// totalPlaces is TOTAL_PLACES of flow.h.
const totalPlaces = 2048

// FlowLayout is FLOW_LAYOUT of flow.h: the number of the layout that flows have in
// maps, which later builds have to know.
const FlowLayout = 2

// SocketLayout is SOCKET_LAYOUT of socket.h: the number of the layout that sockets have
// in maps.
const SocketLayout = 2

// ShareLayout is the number of the layout that shares have in maps.
const ShareLayout = 2

// ShareAll is SHARE_ALL of socket.h: what all shares have together.
const ShareAll = 65536

// HealthLayout is HEALTH_LAYOUT of health.h: the number of the layout that the health of
// TCP connections has in maps.
const HealthLayout = 2
