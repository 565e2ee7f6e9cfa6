// SPDX-License-Identifier: Apache-2.0

// Package hostile attacks a real agent: the built binary in a network namespace that plays a
// node, in a memory cgroup of the chart's limit, beside a pod whose bytes are known and a
// scraper at 1 Hz. After each attack the agent is the same process, scrapes came but for
// those that the attack's row allows, the victim's series have its bytes, no more and no
// less, the log has grown by few lines, and `podmeter verify` ends with 0.
//
// The package is tests alone: `go test ./hack/hostile` as root; PODMETER_STRESS=1 makes each
// attack last longer. docs/RELIABILITY.md has the table of attacks.
package hostile
