// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
)

const (
	comparedPackets      = 1_000_000
	comparedPacketsShort = 20_000

	// packetsEnv and seedEnv choose another number and another sequence.
	packetsEnv = "PODMETER_PARSER_PACKETS"
	seedEnv    = "PODMETER_PARSER_SEED"
)

// The meter and gopacket make the same of a million packets, but for what is
// written in differences.
func TestParserAgainstReference(t *testing.T) {
	t.Parallel()
	ktest.Privileged(t)
	packets := effort.Choose(uint64(comparedPackets), comparedPacketsShort)
	packets, seed := envNumber(t, packetsEnv, packets), envNumber(t, seedEnv, 1)
	comparisons := make([]*comparison, runtime.GOMAXPROCS(0))
	t.Run("sequences", func(t *testing.T) {
		for i := range comparisons {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				comparisons[i] = newComparison(t)
				comparisons[i].runSequence(newDice(seed, uint64(i)), packets/uint64(len(comparisons)))
			})
		}
	})
	if !t.Failed() {
		report(t, comparisons)
	}
}

func envNumber(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	number, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
	return number
}

// runSequence runs so many packets of the dice, up to the first batch that differs.
func (c *comparison) runSequence(d *dice, packets uint64) {
	batch := make([][]byte, 0, batchPackets)
	for done := uint64(0); done < packets; done += uint64(len(batch)) {
		batch = batch[:0]
		for range min(batchPackets, packets-done) {
			batch = append(batch, d.packet())
		}
		if !c.run(batch) {
			return
		}
	}
}

// report logs what was compared, and fails if a difference was of no use.
func report(t *testing.T, comparisons []*comparison) {
	t.Helper()
	var packets, agreed uint64
	outcomes, used := map[MeterOutcome]uint64{}, make([]uint64, len(differences()))
	for _, c := range comparisons {
		packets, agreed = packets+c.packets, agreed+c.agreed
		for outcome, n := range c.counted {
			outcomes[outcome] += n
		}
		for i, n := range c.used {
			used[i] += n
		}
	}
	t.Logf("%d packets, of which gopacket as it is agrees with %d", packets, agreed)
	for outcome := range MeterOutcomeOUTCOME_NO_POINT {
		t.Logf("%10d outcome %d", outcomes[outcome], outcome)
		if outcomes[outcome] == 0 && outcome != MeterOutcomeOUTCOME_TRUNCATED_LINK {
			t.Errorf("outcome %d: got no packet", outcome)
		}
	}
	for i, d := range differences() {
		t.Logf("%10d %s", used[i], d.name)
	}
}

// Every difference is one: without it gopacket judges some packet otherwise.
func TestEveryDifferenceIsOne(t *testing.T) {
	t.Parallel()
	all := reference{differences: differences()}
	shown := make([]int, len(all.differences))
	d := newDice(1, 0)
	for range 20_000 {
		packet := d.packet()
		want := all.parse(packet, 0)
		used := all.used
		for i := range all.differences {
			if used>>i&1 == 0 || shown[i] > 0 {
				continue
			}
			without := reference{differences: append(differences()[:i:i], differences()[i+1:]...)}
			if without.parse(packet, 0) != want {
				shown[i]++
			}
		}
	}
	for i, difference := range all.differences {
		if shown[i] == 0 {
			t.Errorf("%s: got no packet that is judged otherwise without it", difference.name)
		}
	}
}

// The list is also in the documents, with the same words.
func TestDifferencesAreDocumented(t *testing.T) {
	document, err := os.ReadFile("../docs/PARSER.md")
	if err != nil {
		t.Fatalf("read document: %v", err)
	}
	for _, d := range differences() {
		if row := "| " + d.name + " | " + d.reason + " | "; !strings.Contains(string(document), row) {
			t.Errorf("docs/PARSER.md: got no row %q", row)
		}
	}
}

// FuzzParser takes bytes as what decides over a packet, or as the packet itself.
func FuzzParser(f *testing.F) {
	for _, c := range append(append(ipv4Cases(), ipv6Cases()...), linkCases()...) {
		f.Add(c.packet, true)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 64 {
		decisions := make([]byte, 256)
		for i := range decisions {
			decisions[i] = byte(random.Uint32())
		}
		f.Add(decisions, false)
	}
	c := newComparison(f)
	f.Fuzz(func(t *testing.T, data []byte, raw bool) {
		packet := data
		if raw {
			packet = runnable(data)
		} else {
			packet = (&dice{data: data}).packet()
		}
		c.tb = t
		c.run([][]byte{packet})
	})
}
