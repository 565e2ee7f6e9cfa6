// SPDX-License-Identifier: Apache-2.0

// Package demo shows podmeter at work on a small world that it makes for
// itself, and proves its numbers at the end.
//
// Run opens the listener for /metrics and starts the program once more as "the
// node": a process in a network and a mount namespace of its own. There it makes
// pods, one more namespace that plays the internet, traffic between them, and
// runs the real agent. All namespaces are held by processes and descriptors
// alone, and what the agent pins and stores lies on file systems that the node
// mounts for itself, so that nothing is left of a demo however it ends. Both
// processes watch the one that started them and end with it.
//
// Everything here is made, used and closed by one goroutine unless its comment
// says otherwise; the traffic and the agent have goroutines of their own, and
// whoever starts them waits for them.
package demo
