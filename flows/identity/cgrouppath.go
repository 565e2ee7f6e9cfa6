// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

const (
	// podsCgroup is what the kubelet calls the cgroup of all pods, see defaultNodeAllocatableCgroupName in
	// pkg/kubelet/cm/node_container_manager_linux.go of kubernetes.
	podsCgroup = "kubepods"
	slice      = ".slice"
)

var (
	// podCgroup is what the kubelet calls a pod's: pod<UID>. The UID of a static pod is a
	// hash (pkg/kubelet/cm/pod_container_manager_linux.go).
	podCgroup = regexp.MustCompile(`^pod([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32})$`)
	// containerCgroup is what runtimes call a container's: its id, with systemd
	// <runtime>-<id>.scope, and what Kata calls that of a sandbox.
	containerCgroup = regexp.MustCompile(`^(?:[a-z-]+-|kata_)?([0-9a-f]{64})(?:\.scope)?$`)
	// flatCgroup is what a runtime with the driver cgroupfs makes of a container's path below
	// a kubelet with the driver systemd, <slice>:<runtime>:<id>: one directory of this name, in
	// the slice of the runtime's service (defaultDirPath in cgroups/fs2 of runc).
	flatCgroup = regexp.MustCompile(`^(?:[^:]+-)?kubepods(?:-burstable|-besteffort)?-(pod[0-9a-f_]+)\.slice:[a-z0-9-]+:([0-9a-f]{64})$`)
	// podSlice is that of a pod.
	podSlice = regexp.MustCompile(`-pod[0-9a-f_]+\.slice$`)
	// othersCgroup is what is not the kubelet's nor above it: what systemd gives to users,
	// machines, services and scopes, and what container engines make. They may be delegated
	// to whoever runs there, who may make cgroups of any name in them.
	othersCgroup = regexp.MustCompile(`^(?:user\.slice|machine\.slice|.*\.(?:service|scope)|lxc.*|docker|libpod_parent|libpod-.*|machine)$`)
)

// parseCgroup returns the UID and the container id in a cgroup's path, empty where it is
// none. What a container makes below its own cgroup is the container's.
func parseCgroup(path string) (pod, container string) {
	pod, container, _ = locateCgroup(path)
	return pod, container
}

// locateCgroup is parseCgroup, and returns how many levels down the pod's own cgroup is.
//
// A pod's cgroup is where the kubelet puts it, and nowhere else, in the shapes
//
//	[root/…/]kubepods/[burstable|besteffort/]pod<UID>
//	[root.slice/root-….slice/]root-…-kubepods.slice/[….-{burstable,besteffort}.slice/]…-pod<UID>.slice
//
// of the drivers cgroupfs and systemd, the latter with dashes as underscores: root is the
// kubelet's --cgroup-root (pkg/kubelet/cm/cgroup_manager_linux.go). Where the runtime's driver
// is another than the kubelet's each container's is the pod's own, see flatCgroup.
func locateCgroup(path string) (pod, container string, depth int) {
	parts := strings.Split(path, "/")
	pods, prefix, _ := findPods(parts)
	if pod, container, depth = findFlat(parts); pod != "" || pods == 0 {
		return pod, container, depth
	}
	if pod, depth = podBelow(parts[pods:], prefix); pod == "" {
		return "", "", 0
	}
	depth += pods
	for _, part := range parts[depth:] {
		if found := containerCgroup.FindStringSubmatch(part); found != nil {
			return pod, strings.Clone(found[1]), depth
		}
	}
	return pod, "", depth
}

// findFlat returns the pod and the container of a flatCgroup in slices that are neither a pod's
// nor others', and how many levels down it is.
func findFlat(parts []string) (pod, container string, depth int) {
	for n, part := range parts {
		if found := flatCgroup.FindStringSubmatch(part); found != nil {
			name := podCgroup.FindStringSubmatch(strings.ReplaceAll(found[1], "_", "-"))
			if name == nil {
				return "", "", 0
			}
			return strings.Clone(name[1]), strings.Clone(found[2]), n + 1
		}
		if !strings.HasSuffix(part, slice) || podSlice.MatchString(part) || othersCgroup.MatchString(part) {
			return "", "", 0
		}
	}
	return "", "", 0
}

// findPods returns how many levels down the cgroup of all pods is, 0 if it is not on the
// path, and the prefix of the names below it. Others is whether it cannot be further down
// either.
func findPods(parts []string) (levels int, prefix string, others bool) {
	for n, part := range parts {
		if prefix, found := podsOf(parts[:n], part); found {
			return n + 1, prefix, false
		}
		if othersCgroup.MatchString(part) || containerCgroup.MatchString(part) {
			return 0, "", true
		}
	}
	return 0, "", false
}

// podsOf reports whether a cgroup below others is that of all pods. The prefix is what
// begins the names below it: empty with cgroupfs, of which names are no paths.
func podsOf(above []string, part string) (prefix string, found bool) {
	if part == podsCgroup {
		return "", true
	}
	prefix, isSlice := strings.CutSuffix(part, slice)
	root, found := strings.CutSuffix(prefix, podsCgroup)
	if !isSlice || !found {
		return "", false
	}
	if root == "" {
		return prefix, true
	}
	root, dashed := strings.CutSuffix(root, "-")
	return prefix, dashed && len(above) > 0 && above[len(above)-1] == root+slice
}

// podBelow returns the pod whose cgroup, or that of what is in it, these are below that of
// all pods, and how many levels down it is.
func podBelow(parts []string, prefix string) (pod string, depth int) {
	for depth, part := range parts {
		name := part
		if prefix != "" {
			below, isBelow := strings.CutPrefix(part, prefix+"-")
			unsliced, isSlice := strings.CutSuffix(below, slice)
			if !isBelow || !isSlice {
				return "", 0
			}
			name = strings.ReplaceAll(unsliced, "_", "-")
		}
		if found := podCgroup.FindStringSubmatch(name); found != nil {
			return strings.Clone(found[1]), depth + 1 // without the rest of the path
		}
		if depth > 0 || name != "burstable" && name != "besteffort" {
			return "", 0
		}
		if prefix != "" {
			prefix += "-" + name
		}
	}
	return "", 0
}

// undelegated reports whether the first levels of a path are their owner's alone to whom the
// hierarchy belongs: that of a user who was given a cgroup are that user's.
func (c *Cgroups) undelegated(below string, levels int) bool {
	root, err := os.Stat(c.root)
	if err != nil {
		return false
	}
	path := c.root
	for _, part := range strings.SplitN(below, "/", levels+1)[:levels] {
		path = filepath.Join(path, part)
		info, err := os.Stat(path)
		if err != nil || !sameHands(root, info) {
			return false
		}
	}
	return true
}

// sameHands reports whether nobody may change a directory who may not change the other.
func sameHands(root, info fs.FileInfo) bool {
	const others = 0o022
	owner := func(i fs.FileInfo) uint32 { return i.Sys().(*syscall.Stat_t).Uid }
	return owner(root) == owner(info) && info.Mode()&others&^root.Mode() == 0
}
