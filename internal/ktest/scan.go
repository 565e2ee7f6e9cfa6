// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// scanBatch is how many frames a scan sends at once.
const scanBatch = 64

// ScanFrames returns UDP frames of 54 bytes from 198.51.100.0/24 to 203.0.113.0/24 that
// [SetFlow] makes the first packets of as many flows.
func ScanFrames() [][]byte {
	frames := make([][]byte, scanBatch)
	for i := range frames {
		frames[i] = Packet(Ethernet(unix.ETH_P_IP), IPv4(netip.MustParseAddr("198.51.100.0"),
			netip.MustParseAddr("203.0.113.0"), unix.IPPROTO_UDP), Ports(0, 0))
	}
	return frames
}

// SetFlow gives a frame of [ScanFrames] the last byte of both addresses, and both ports. As
// the factor is odd, none of 2^48 flows comes twice.
func SetFlow(frame []byte, flow uint64) {
	const ethernet = 14
	const sourceHost, destinationHost, ports = ethernet + 15, ethernet + 19, ethernet + 20
	x := flow * 0x9e3779b97f4a7c15
	frame[sourceHost], frame[destinationHost] = byte(x>>40), byte(x>>32)
	binary.BigEndian.PutUint32(frame[ports:], uint32(x))
}
