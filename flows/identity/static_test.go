// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/regular"
)

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// static writes a file and reads it into a cache of its own.
func static(t *testing.T, k *clock, text string) (*Static, *Cache, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "static.yaml")
	write(t, file, text)
	c := NewCache(CacheOptions{Now: k.now})
	s, err := NewStatic(c, file)
	if err != nil {
		t.Fatal(err)
	}
	return s, c, file
}

func TestStaticExample(t *testing.T) {
	c := NewCache(CacheOptions{Now: (&clock{start}).now})
	s, err := NewStatic(c, "testdata/static.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewCIDRFile(c, "testdata/cidrs.yaml"); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"10.1.0.5": "web-0", "2001:db8:1::5": "web-0", "10.1.1.5": "db", "10.96.0.10": "service:web",
		"203.0.113.10": "service:web", "192.0.2.1": "node:edge-1", "192.0.2.2": "node:edge-2",
		"10.1.9.9": "cluster", "10.96.1.1": "cluster", "198.51.100.1": "cidr:office",
		"198.51.100.7": "cidr:printer", "2001:db8:ff::1": "cidr:office", "10.2.0.1": "private",
	} {
		if got := says(c.Owner(query(address, -1e6, 1))); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
	want := Status{Source: "static", Synced: true, Updated: start,
		Objects: map[string]int{"pod": 3, "service": 1, "node": 2, "cidr": 3}}
	if diff := cmp.Diff(want, s.Status()); diff != "" {
		t.Error(diff)
	}
	if node, zone := c.Here(); node != "edge-1" || zone != "z1" {
		t.Errorf("here: got %q in %q, want edge-1 in z1", node, zone)
	}
}

func TestStaticBinds(t *testing.T) {
	c := NewCache(CacheOptions{Now: (&clock{start}).now})
	s, err := NewStatic(c, "testdata/static.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		i    flows.Interface
		want *flows.Pod
	}{
		{"by device", flows.Interface{Name: "veth-batch", Addresses: addresses("10.1.0.5")},
			&flows.Pod{UID: "static:shop/batch", Namespace: "shop", Name: "batch",
				Workload: flows.Workload{Type: flows.BarePod, Name: "batch"}, Node: "edge-1", Zone: "z1"}},
		{"by address", flows.Interface{Name: "veth0", Addresses: addresses("10.1.0.5", "2001:db8:1::5")},
			&flows.Pod{UID: "static:shop/web-0", Namespace: "shop", Name: "web-0", Container: "nginx",
				Workload: flows.Workload{Type: "statefulset", Name: "web"}, Node: "edge-1", Zone: "z1"}},
		{"of another node", flows.Interface{Name: "veth1", Addresses: addresses("10.1.1.5")}, nil},
		{"of none", flows.Interface{Name: "veth2"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.i.PeerNamespace, test.i.Attached = -1, start
			if diff := cmp.Diff(test.want, s.Binder().Bind(test.i, nil, &flows.Bound{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReloadKeepsHistory(t *testing.T) {
	k := &clock{start}
	s, c, file := static(t, k, `
pods:
  - {name: a, ips: [10.0.0.1]}
  - {name: b, ips: [10.0.0.2]}
  - {name: c, ips: [10.0.0.3]}
nodes: [{name: n, addresses: [192.0.2.1]}]
services: [{name: s, ips: [10.96.0.1]}]
podCIDRs: [10.0.0.0/8]
`)
	k.Time = at(100)
	write(t, file, `
pods:
  - {name: b, ips: [10.0.0.1]}
  - {name: a, ips: [10.0.0.2]}
  - {name: d, ips: [10.0.0.3, 10.0.0.4]}
`)
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ address, before, after, across string }{
		{"10.0.0.1", "a", "b", "unattributed"},
		{"10.0.0.2", "b", "a", "unattributed"},
		{"10.0.0.3", "c", "d", "unattributed"},
		{"10.0.0.4", "d", "d", "d"},
		{"192.0.2.1", "node:n", "external", "unattributed"},
		{"10.96.0.1", "service:s", "private", "unattributed"},
		{"10.0.0.9", "private", "private", "private"},
	} {
		before, after := c.Owner(query(test.address, 10, 90)), c.Owner(query(test.address, 110, 120))
		across := c.Owner(query(test.address, 10, 190))
		got := []string{says(before), says(after), says(across)}
		if diff := cmp.Diff([]string{test.before, test.after, test.across}, got); diff != "" {
			t.Errorf("%s: %s", test.address, diff)
		}
	}
}

func TestReloadKeepsOldContentOnError(t *testing.T) {
	k := &clock{start}
	s, c, file := static(t, k, `pods: [{name: a, ips: [10.0.0.1]}]`)
	k.Time = at(60)
	write(t, file, `pods: [{name: b, ips: [10.0.0.1, 10.0.0.300]}]`)
	err := s.Reload()
	if err == nil {
		t.Fatal("got no error")
	}
	if got := s.Status(); got.Problem != err.Error() || !got.Updated.Equal(start) {
		t.Errorf("got %+v, want the problem and the old time", got)
	}
	if got := says(c.Owner(query("10.0.0.1", 70, 80))); got != "a" {
		t.Errorf("got %s, want a", got)
	}
	write(t, file, `pods: [{name: b, ips: [10.0.0.1]}]`)
	if err := s.Reload(); err != nil || s.Status().Problem != "" {
		t.Errorf("got %v and %q, want no problem any more", err, s.Status().Problem)
	}
}

func TestReloadOfCIDRFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cidrs.yaml")
	write(t, file, "office: [198.51.100.0/24]")
	c := newTestCache(&clock{start})
	f, err := NewCIDRFile(c, file)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ text, want string }{
		{"office: [198.51.100.0]", "cidr:office"},
		{"home: [198.51.100.0/24]", "cidr:home"},
		{"{}", "external"},
	} {
		write(t, file, step.text)
		if err := f.Reload(); (err != nil) != (step.want == "cidr:office") {
			t.Errorf("%s: got error %v", step.text, err)
		}
		if got := says(c.Owner(query("198.51.100.1", 0, 0))); got != step.want {
			t.Errorf("%s: got %s, want %s", step.text, got, step.want)
		}
	}
}

// A file that would hang its reader, or fill the memory, is refused by name, at the start and
// when it is read again; the old content stays then.
func TestFilesThatAreNone(t *testing.T) {
	pipe, large := filepath.Join(t.TempDir(), "pipe"), filepath.Join(t.TempDir(), "large.yaml")
	if err := errors.Join(unix.Mkfifo(pipe, 0o600), os.WriteFile(large, nil, 0o600), os.Truncate(large, fileLimit+1)); err != nil {
		t.Fatal(err)
	}
	c := newTestCache(&clock{start})
	for _, path := range []string{pipe, large, "/dev/zero", t.TempDir()} {
		if _, err := NewStatic(c, path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("static: got %v, want %s refused", err, path)
		}
		if _, err := NewCIDRFile(c, path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("CIDR: got %v, want %s refused", err, path)
		}
	}
	path := filepath.Join(t.TempDir(), "cidrs.yaml")
	if err := os.WriteFile(path, []byte("office: [198.51.100.0/24]"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := NewCIDRFile(c, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := f.Reload(); !errors.Is(err, regular.ErrNotRegular) {
		t.Errorf("reload: got %v, want %v", err, regular.ErrNotRegular)
	}
	if got := c.Counts()["cidr"]; got != 1 {
		t.Errorf("after a reload that failed: got %d ranges, want the one that was there", got)
	}
}

func TestMissingFile(t *testing.T) {
	c := newTestCache(&clock{start})
	if _, err := NewStatic(c, "testdata/none.yaml"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("static: got %v", err)
	}
	if _, err := NewCIDRFile(c, "testdata/none.yaml"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("CIDR: got %v", err)
	}
}
