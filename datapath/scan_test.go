// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sys/unix"
)

const (
	// scanEnv makes the test's binary a sender, with a sender as its value.
	scanEnv = "PODMETER_TEST_SENDER"

	scanSenders = 2
)

// scanFor is how long a flood takes.
func scanFor(t *testing.T, short, long time.Duration) time.Duration {
	t.Helper()
	effort.Long(t, fmt.Sprintf("floods for %v", short))
	if effort.Stressed() {
		return long
	}
	return short
}

// sender is a process that sends one packet for each of its flows. It is not the
// test's own, whose runtime would wait for its threads.
type sender struct {
	Number int
	For    time.Duration
	// Rate is packets per second; 0: as many as it can.
	Rate float64
	// Nice is its priority, 19 to leave the agent the time that it wants; Pinned
	// keeps it on the CPU of its number.
	Nice   int
	Pinned bool
}

// scan runs the senders in the pod, until they end.
func scan(t *testing.T, pod *ktest.Namespace, like sender) {
	t.Helper()
	var senders sync.WaitGroup
	defer senders.Wait()
	for n := range scanSenders {
		like.Number = n
		argument, err := json.Marshal(like)
		if err != nil {
			t.Fatal(err)
		}
		command := exec.Command(os.Args[0], "-test.run=^TestSenderProcess$")
		command.Env = append(os.Environ(), scanEnv+"="+string(argument))
		command.ExtraFiles = []*os.File{pod.NewInjector(t, "eth0", false).Socket()}
		senders.Go(func() {
			if output, err := command.CombinedOutput(); err != nil {
				t.Errorf("sender: %v: %s", err, output)
			}
		})
	}
}

// TestSenderProcess is no test but what a sender's process runs.
func TestSenderProcess(t *testing.T) {
	argument := os.Getenv(scanEnv)
	if argument == "" {
		return
	}
	var s sender
	if err := json.Unmarshal([]byte(argument), &s); err != nil {
		t.Fatal(err)
	}
	if err := s.run(ktest.InjectorOf(os.NewFile(3, "socket"))); err != nil {
		t.Fatal(err)
	}
}

func (s *sender) run(injector *ktest.Injector) error {
	frames := ktest.ScanFrames()
	if err := s.place(); err != nil {
		return err
	}
	flow := uint64(s.Number) << 40
	began := time.Now()
	// One that gives way to others may get little of a busy machine: it goes on for longer.
	for sent := 0; time.Since(began) < s.For || sent < floodPorts && time.Since(began) < time.Minute; sent += len(frames) {
		if s.Rate > 0 { // the time at which this packet is due
			time.Sleep(time.Until(began.Add(time.Duration(float64(sent) / s.Rate * float64(time.Second)))))
		}
		for _, frame := range frames {
			flow++
			ktest.SetFlow(frame, flow)
		}
		if _, err := injector.Send(frames...); err != nil {
			return err
		}
	}
	return nil
}

// place gives the thread that sends its CPU and priority, and keeps to it.
func (s *sender) place() error {
	const thisThread = 0
	runtime.LockOSThread()
	if s.Pinned {
		var cpus unix.CPUSet
		cpus.Set(s.Number)
		if err := unix.SchedSetaffinity(thisThread, &cpus); err != nil {
			return fmt.Errorf("pin to CPU %d: %w", s.Number, err)
		}
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, thisThread, s.Nice); err != nil {
		return fmt.Errorf("set priority: %w", err)
	}
	return nil
}

// attributing is a sink that adds up what it is given and attributes it as an
// agent does: one pod, all of whose peers are external.
type attributing struct {
	tally
	epochs int
	table  *flows.Table
	to     *flows.Publisher
}

func newAttributing() *attributing {
	a := &attributing{table: flows.NewTable(flows.TableOptions{
		FlowLimit: 2000, ExternalLimit: 1000, FlowIdle: time.Hour, SeriesGrace: time.Hour,
	})}
	a.to = flows.NewPublisher(flows.PublisherOptions{
		Table: a.table, Directory: everyoneExternal{}, Binder: alwaysBound{}, Logger: slog.New(slog.DiscardHandler),
	})
	return a
}

func (a *attributing) Publish(epoch *flows.Epoch) error {
	a.epochs++
	if err := a.tally.Publish(epoch); err != nil {
		return err
	}
	return a.to.Publish(epoch)
}

// exported returns what the pod's series say, and of it what is unattributed.
func (a *attributing) exported() (pod, unattributed byDirection) {
	snapshot := a.table.Snapshot()
	for _, s := range snapshot.Pods {
		pod = pod.add(s.Counters)
	}
	for _, s := range snapshot.Flows {
		if s.Labels.PeerKind == flows.PeerUnattributed {
			unattributed = unattributed.add(s.Counters)
		}
	}
	return pod, unattributed
}

type everyoneExternal struct{}

var external = &flows.Owner{Kind: flows.PeerExternal}

func (everyoneExternal) Owner(flows.Query) *flows.Owner                       { return external }
func (everyoneExternal) LocalPod(netip.Addr, time.Time, time.Time) *flows.Pod { return nil }
func (everyoneExternal) Here() (node, zone string)                            { return "", "" }

type alwaysBound struct{}

func (alwaysBound) Bind(i flows.Interface, _ []netip.Addr, _ *flows.Bound) *flows.Pod {
	return &flows.Pod{UID: i.Name, Name: i.Name}
}

// messages are what a logger said, as text.
type messages struct {
	mu   sync.Mutex
	text strings.Builder
}

func (m *messages) Write(line []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.text.Write(line)
}

func (m *messages) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.text.String()
}
