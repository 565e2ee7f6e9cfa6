// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/datapath"
	"golang.org/x/sys/unix"
)

func TestInManifest(t *testing.T) {
	c := Defaults()
	c.PinPath = "/bpf/podmeter"
	for _, test := range []struct {
		name string
		err  error
		want string // empty for none of the manifest's
	}{
		{"capability", fmt.Errorf("%w: CAP_BPF", datapath.ErrCapability), "securityContext needs runAsUser: 0 and capabilities.add: [BPF, PERFMON, NET_ADMIN]"},
		{"no bpffs", Usage(fmt.Errorf("%w: %w", datapath.ErrPinPath, datapath.ErrNoBPFFS)), "mountPath: /bpf/podmeter"},
		{"no directory for the socket", unwritable(&os.PathError{Op: "mkdir", Path: "/run/podmeter", Err: unix.EROFS}), "path: /run/podmeter"},
		{"pins are read-only", fmt.Errorf("pin map: %w", unix.EROFS), "/bpf/podmeter readOnly"},
		{"seccomp", fmt.Errorf("map create: %w", unix.EPERM), "seccompProfile"},
		{"SELinux", fmt.Errorf("map create: %w", unix.EACCES), "seLinuxOptions"},
		{"something else", errors.New("no such thing"), ""},
		{"socket of another kind", unwritable(unix.EADDRINUSE), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := c.InManifest(test.err); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q in it", got, test.want)
			}
		})
	}
}
