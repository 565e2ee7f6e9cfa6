// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net/netip"
	"os"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.yaml.in/yaml/v3"
)

// FuzzReadCIDRs reads arbitrary bytes as a file of named ranges: what is refused is
// refused with file and line, and what is taken is the same when written down anew.
func FuzzReadCIDRs(f *testing.F) {
	example, err := os.ReadFile("testdata/cidrs.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	for _, seed := range []string{
		"", "a: [10.0.0.0/8]\nb: [10.1.0.0/16, 2001:db8::/32]", "a: &a [10.0.0.0/8]\nb: *a", "a: [10.0.0.1/8]",
		"a: ['::ffff:10.0.0.0/104']", "? [a]\n: [10.0.0.0/8]", "<<: {a: [10.0.0.0/8]}", "a: ~", "\xff", "a: [0.0.0.0/0]\n---\nb: []",
	} {
		f.Add([]byte(seed))
	}
	withLine := regexp.MustCompile(`^f\.yaml:[1-9][0-9]*: .`)
	f.Fuzz(func(t *testing.T, data []byte) {
		named, err := readCIDRs("f.yaml", data)
		if err != nil {
			for _, fault := range err.(interface{ Unwrap() []error }).Unwrap() {
				if !withLine.MatchString(fault.Error()) {
					t.Errorf("got a fault without line: %q", fault)
				}
			}
			return
		}
		again, err := readCIDRs("f.yaml", writeCIDRs(t, named))
		if diff := cmp.Diff(named, again, cmpopts.EquateComparable(netip.Prefix{})); err != nil || diff != "" {
			t.Errorf("written down anew: got %v, (-want +got):\n%s", err, diff)
		}
		cache := NewCache(CacheOptions{})
		cache.setNamed(named)
		for prefix, name := range named {
			if got := cache.Owner(query(prefix.Addr().String(), 0, 0)); got == nil {
				t.Errorf("%s of %q: got no owner", prefix, name)
			}
		}
	})
}

// writeCIDRs is what [readCIDRs] reads.
func writeCIDRs(t *testing.T, named map[netip.Prefix]string) []byte {
	t.Helper()
	byName := make(map[string][]string)
	for prefix, name := range named {
		byName[name] = append(byName[name], prefix.String())
	}
	file, err := yaml.Marshal(byName)
	if err != nil {
		t.Fatal(err)
	}
	return file
}
