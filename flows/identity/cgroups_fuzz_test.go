// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"strings"
	"testing"
)

// FuzzParseCgroup gives it what directories may be called: whatever that is, a pod's UID
// and a container's id are what they look like, and a container is in a pod.
func FuzzParseCgroup(f *testing.F) {
	for _, path := range []string{
		"", ".", "kubepods/pod" + cgroupUID + "/" + cgroupID, "system.slice/docker-" + cgroupID + ".scope",
		"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + strings.ReplaceAll(cgroupUID, "-", "_") + ".slice/cri-containerd-" + cgroupID + ".scope",
		"a/pod" + cgroupStatic + "//../\x00\xff", strings.Repeat("pod/", 300),
	} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		pod, container := parseCgroup(path)
		if container != "" && (pod == "" || len(container) != 64 || strings.Trim(container, "0123456789abcdef") != "") {
			t.Errorf("%q: got container %q of pod %q", path, container, pod)
		}
		if pod != "" && (len(pod) != 36 && len(pod) != 32 || strings.Trim(pod, "0123456789abcdef-") != "") {
			t.Errorf("%q: got pod %q", path, pod)
		}
	})
}
