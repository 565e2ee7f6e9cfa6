// SPDX-License-Identifier: Apache-2.0

package bpf

import "github.com/cilium/ebpf"

// SocketHook is where on a cgroup a program of sockets belongs.
type SocketHook struct {
	Attach  ebpf.AttachType
	Program *ebpf.Program
}

// Hooks returns all of them by a name each.
func (p *SocketPrograms) Hooks() map[string]SocketHook {
	return map[string]SocketHook{
		"tcp":      {ebpf.AttachCGroupSockOps, p.PodmeterTcp},
		"bind4":    {ebpf.AttachCGroupInet4PostBind, p.PodmeterBind4},
		"bind6":    {ebpf.AttachCGroupInet6PostBind, p.PodmeterBind6},
		"connect4": {ebpf.AttachCGroupInet4Connect, p.PodmeterConnect4},
		"connect6": {ebpf.AttachCGroupInet6Connect, p.PodmeterConnect6},
		"sendmsg4": {ebpf.AttachCGroupUDP4Sendmsg, p.PodmeterSendmsg4},
		"sendmsg6": {ebpf.AttachCGroupUDP6Sendmsg, p.PodmeterSendmsg6},
		"release":  {ebpf.AttachCgroupInetSockRelease, p.PodmeterRelease},
	}
}
