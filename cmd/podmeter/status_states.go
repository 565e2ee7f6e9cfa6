// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/datapath"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/metrics"
)

// advice says of a state what it means and what to do; there is nothing to say of
// an interface that is attached.
func advice(state datapath.State) string {
	switch state {
	case datapath.StateSettling:
		return "what passed before is not yet known: wait"
	case datapath.StatePartial:
		return "an ingress qdisc leaves no egress hook: received bytes are the interface's own, unattributed; replace it by clsact"
	case datapath.StateShadowed:
		return "a program before ours ends the chain: what it hides is exported as unattributed; attach it after ours, or let it return TC_ACT_UNSPEC"
	case datapath.StateBypassed:
		return "packets are redirected to the pod round its interface: exported as unattributed; switch bpf_redirect_peer off to see their flows"
	case datapath.StateDiffers:
		return "the interface counts other packets than podmeter: offloads, XDP, a qdisc or program behind ours that drops or redirects, " +
			"a program that redirects to the interface, or frames cut within a VLAN tag: see the README's questions"
	case datapath.StateUnknown:
		return "another's program could redirect packets round it and nothing counts them: Linux 6.7 and stable kernels with its fix would"
	case datapath.StateGone:
		return "its last packets are being published: wait"
	}
	return ""
}

// writeStates explains the states that there are, and says of each interface who
// keeps how much from podmeter.
func writeStates(w io.Writer, interfaces []agent.InterfaceStatus) error {
	var lines []string
	for _, state := range datapath.States() {
		is := func(i agent.InterfaceStatus) bool { return i.State == string(state) }
		if text := advice(state); text != "" && slices.ContainsFunc(interfaces, is) {
			lines = append(lines, string(state)+"\t"+text)
		}
	}
	for i := range interfaces {
		lines = append(lines, unseen(&interfaces[i])...)
	}
	if len(lines) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(table, "\n%s\n", strings.Join(lines, "\n"))
	return table.Flush()
}

// unseen says what podmeter's programs could not see of an interface, and why.
func unseen(i *agent.InterfaceStatus) (lines []string) {
	for d := range flows.Direction(flows.Directions) {
		who, hidden := strings.Join(i.Ahead[d], ", "), i.Hidden[d]
		switch {
		case who != "":
			lines = append(lines, fmt.Sprintf("%s\t%s comes after %s, hidden so far: %s", i.Name, d, who, size(hidden.Bytes)))
		case !hidden.IsZero():
			lines = append(lines, fmt.Sprintf("%s\t%s was hidden for a time: %s", i.Name, d, size(hidden.Bytes)))
		}
	}
	if !i.Bypassed.IsZero() {
		lines = append(lines, fmt.Sprintf("%s\treceive round it so far: %s", i.Name, size(i.Bypassed.Bytes)))
	}
	return lines
}

// writeYields lists what is not metered for a foreign program's sake, if there is anything.
func writeYields(w io.Writer, yields []agent.YieldStatus) error {
	if len(yields) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "\nNOT METERED\tAS PODMETER'S PROGRAMS WOULD SWITCH OFF A FOREIGN ONE, WHICH BPF_F_ALLOW_MULTI WOULD KEEP ON")
	for _, y := range yields {
		fmt.Fprintf(table, "%s\t%s\n", yieldedText(&y), y.Foreign)
	}
	return table.Flush()
}

// yieldedText is what is not metered.
func yieldedText(y *agent.YieldStatus) string {
	switch {
	case y.Programs == metrics.YieldedSockets:
		return "sockets"
	case y.Pod == "":
		return y.Cgroup
	}
	return y.Namespace + "/" + y.Pod
}

// writeUnpopulated lists the running pods in whose cgroup there is no process, if there are any.
func writeUnpopulated(w io.Writer, pods []agent.UnpopulatedStatus, now time.Time) error {
	if len(pods) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "\nNO PROCESS\tIN THE CGROUP OF A POD THAT RUNS: ITS SOCKETS ARE WHERE PODMETER DOES NOT KNOW THEM")
	for _, p := range pods {
		consequence := "containers and TCP health unknown"
		if p.HostNetwork {
			consequence = "not counted"
		}
		fmt.Fprintf(table, "%s/%s\t%s, first seen %s: %s\n", p.Namespace, p.Pod, consequence, ago(p.Since, now), p.Cgroup)
	}
	return table.Flush()
}
