// SPDX-License-Identifier: Apache-2.0

package datapath

// A buffer of more elements than spareLeast that was used to less than one part in spareShare
// is given up.
const spareLeast, spareShare = 4096, 4

// spare returns a buffer to be used again, from its beginning, of which so many elements were
// used last time. After a burst, such as a scan of all ports, it is a new one: memory that nothing
// needs is not held for good.
func spare[T any](buffer []T, used int) []T {
	if cap(buffer) > spareLeast && used < cap(buffer)/spareShare {
		return nil
	}
	return buffer[:0]
}
