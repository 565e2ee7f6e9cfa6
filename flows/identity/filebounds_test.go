// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/internal/effort"
)

// Names of a file are not cut: the file is wrong, and says where.
func TestNamesOfFilesAreRefused(t *testing.T) {
	long := strings.Repeat("a", 64)
	static := fmt.Sprintf(`node: {name: "here\tthere", zone: %[1]s}
pods:
- {namespace: %[1]s, name: "a\e[2J", ips: [10.0.0.1], node: "<b>"}
- {name: %[2]s, ips: [10.0.0.2], workload: {type: %[1]s, name: %[2]s}, containers: [%[1]s]}
- {name: "\u202e", interface: %[1]s}
services:
- {namespace: %[1]s, name: %[2]s, ips: [10.96.0.1]}
nodes:
- {name: %[2]s, zone: %[1]s}
`, long, strings.Repeat("a", 254))
	want := []string{
		`1: node: name: "here\tthere" has a character that names may not have`,
		"1: node: zone: has 64 bytes, more than 63",
		"1: node: needs a name",
		"3: pod " + long + "/a\ufffd[2J: namespace: has 64 bytes, more than 63",
		"3: pod " + long + "/a\ufffd[2J: name: \"a\\x1b[2J\" has a character that names may not have",
		"3: pod " + long + "/a\ufffd[2J: node: \"<b>\" has a character that names may not have",
	}
	_, err := readContent("f.yaml", []byte(static), "")
	got := lines(err)
	if len(got) < len(want) {
		t.Fatalf("got %q", got)
	}
	if diff := cmp.Diff(want, got[:len(want)]); diff != "" {
		t.Error(diff)
	}
	for line, faults := range map[int]int{4: 6, 5: 3, 7: 3, 9: 3} {
		if n := strings.Count("\n"+strings.Join(got, "\n"), fmt.Sprintf("\n%d: ", line)); n != faults {
			t.Errorf("line %d: got %d faults, want %d: %q", line, n, faults, got)
		}
	}
	_, err = readCIDRs("f.yaml", []byte(fmt.Sprintf("%s: [10.0.0.0/8]\n\"b\\u009b\": [10.1.0.0/16]\n", strings.Repeat("a", 254))))
	want = []string{"1: name: has 254 bytes, more than 253", `2: name: "b\u009b" has a character that names may not have`}
	if diff := cmp.Diff(want, lines(err)); diff != "" {
		t.Error(diff)
	}
}

// A small file cannot stand for more than there is memory or time for.
func TestFilesThatStandForMuch(t *testing.T) {
	manyTimes := func(item string, n int) string { return strings.TrimSuffix(strings.Repeat(item+", ", n), ", ") }
	product := func(n int) (text string) {
		text = "services:\n"
		for i := range n {
			text += fmt.Sprintf("- {name: s%d, externalIPs: [%s], ports: [", i, strings.Join(many(maxServiceAddresses), ", "))
			for port := range maxServicePorts {
				text += fmt.Sprintf("{port: %d}, ", 1+i*maxServicePorts+port)
			}
			text += "]}\n"
		}
		return text
	}
	aliases := func() (text string) {
		for i, a := range many(2200) {
			ports := "*p"
			if i == 0 {
				ports = "&p ["
				for port := range 1000 {
					ports += fmt.Sprintf("{port: %d}, ", port+1)
				}
				ports += "]"
			}
			text += fmt.Sprintf("- {name: s%d, ips: [%s], ports: %s}\n", i, a, ports)
		}
		return "services:\n" + text
	}
	for _, test := range []struct {
		name, text, want string
		long             bool
	}{
		{"faults", "pods: [" + manyTimes("5", 1000) + "]", "no more faults are looked for", false},
		{"aliases of a list", aliases(), fmt.Sprintf("aliases, or addresses by ports, make more than %d items of the file", itemLimit), true},
		{"ports of addresses", product(2),
			fmt.Sprintf("3: service s1: externalIPs: the file has more than %d addresses and ports of services", maxEndpoints), false},
		{"a wide service", "services:\n- {name: s, externalIPs: [" + strings.Join(many(257), ", ") + "], ports: [{port: 1}]}",
			"2: service s: has 257 externalIPs and 1 ports, at most 256 and 1024 are known", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.long {
				effort.Long(t, "stands for two million items")
			}
			_, err := readContent("f.yaml", []byte(test.text), "")
			got := lines(err)
			if len(got) > faultLimit+1 || !strings.Contains(strings.Join(got, "\n")+"\n", test.want+"\n") {
				t.Errorf("got %d faults, want among at most %d %q:\n%.2000s", len(got), faultLimit+1, test.want, err)
			}
		})
	}
}
