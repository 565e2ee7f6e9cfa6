// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/flows"
)

// sent moves a byte on an interface between both readings of a try.
func sent(o *Observation, index int, d flows.Direction) {
	device := o.After[index]
	device.Own[d].Add(counters(1, 1))
	o.After[index] = device
}

// tell changes an interface in both of an agent's answers.
func tell(o *Observation, index int, change func(*Interface)) {
	for _, a := range []*Agent{o.First, o.Second} {
		for n := range a.Interfaces {
			if a.Interfaces[n].Index == index {
				change(&a.Interfaces[n])
			}
		}
	}
}

// export adds 1 to a pod's series that is not of external flows.
func (o *Observation) export(name string, pod Pod) {
	for n, s := range o.Metrics[name] {
		if s.Pod() == pod && s.Labels["peer_kind"] != "external" {
			o.Metrics[name][n].Value++
			return
		}
	}
}

// drop takes an interface out of what the kernel, or the agent, says.
func drop(kernel Kernel, index int) { delete(kernel, index) }

func (a *Agent) drop(index int) {
	for n := range a.Interfaces {
		if a.Interfaces[n].Index == index {
			earlier := a.Earlier[a.Interfaces[n].Pod]
			for d := range earlier {
				earlier[d].Add(a.Interfaces[n].Exported[d])
			}
			a.Earlier[a.Interfaces[n].Pod] = earlier
			a.Interfaces = append(a.Interfaces[:n], a.Interfaces[n+1:]...)
			return
		}
	}
}

// roundCase is a run of tries, each changed.
type roundCase struct {
	name   string
	change func(o *Observation, try int)
	code   int
	tries  int
	// want are the verdicts of veth1, transmit then receive; empty for no row.
	want []Verdict
}

func quietCases() []roundCase {
	falsify := func(o *Observation) {
		tell(o, 1, func(i *Interface) { i.Exported[flows.Transmit].Bytes++ })
		o.export("podmeter_pod_transmit_bytes_total", Pod{"shop", "web"})
		o.export("podmeter_flow_transmit_bytes_total", Pod{"shop", "web"})
	}
	return []roundCase{
		{"quiet", func(*Observation, int) {}, CodeEqual, 1, []Verdict{Equal, Equal}},
		{"moves once", func(o *Observation, try int) {
			if try == 1 {
				sent(o, 1, flows.Transmit)
			}
		}, CodeEqual, 2, []Verdict{Equal, Equal}},
		{"moves always, one way", func(o *Observation, _ int) { sent(o, 1, flows.Transmit) },
			CodeUndecided, MaxTries, []Verdict{Moving, Equal}},
		{"the agent learns of it only after the scrape", func(o *Observation, try int) {
			if try < 3 {
				o.First.Interfaces[0].Exported[flows.Receive].Bytes--
			}
		}, CodeEqual, 3, []Verdict{Equal, Equal}},
		{"unequal", func(o *Observation, _ int) { falsify(o) }, CodeUnequal, MaxTries, []Verdict{Unequal, Equal}},
		{"unequal once, as a packet was on its way", func(o *Observation, try int) {
			if try == 1 {
				falsify(o)
			}
		}, CodeEqual, 2, []Verdict{Equal, Equal}},
		{"unequal once, and moving from then on", func(o *Observation, try int) {
			if try == 1 {
				falsify(o)
			} else {
				sent(o, 1, flows.Transmit)
			}
		}, CodeUndecided, MaxTries, []Verdict{Moving, Equal}},
		{"unequal whenever it does not move", func(o *Observation, try int) {
			if try == 3 || try == 7 {
				falsify(o)
			} else {
				sent(o, 1, flows.Transmit)
			}
		}, CodeUnequal, MaxTries, []Verdict{Unequal, Equal}},
		{"settling", func(o *Observation, _ int) { tell(o, 1, func(i *Interface) { i.State = "settling" }) },
			CodeUndecided, MaxTries, []Verdict{Settling, Settling}},
		{"settling, and it moves", func(o *Observation, _ int) {
			tell(o, 1, func(i *Interface) { i.State = "settling" })
			sent(o, 1, flows.Receive)
		}, CodeUndecided, MaxTries, []Verdict{Settling, Settling}},
		{"settles", func(o *Observation, try int) {
			if try < 4 {
				tell(o, 1, func(i *Interface) { i.State = "settling" })
			}
		}, CodeEqual, 4, []Verdict{Equal, Equal}},
		{"unknown", func(o *Observation, _ int) { tell(o, 1, func(i *Interface) { i.State = "unknown" }) },
			CodeUndecided, 1, []Verdict{Unknown, Unknown}},
	}
}

func comingCases() []roundCase {
	return []roundCase{
		{"gone before", func(o *Observation, _ int) { tell(o, 1, func(i *Interface) { i.State = "gone" }) }, CodeEqual, 1, nil},
		{"goes while it moves", func(o *Observation, try int) {
			if try < 3 {
				sent(o, 1, flows.Transmit)
				sent(o, 1, flows.Receive)
				return
			}
			drop(o.Before, 1)
			drop(o.After, 1)
			o.First.drop(1)
			o.Second.drop(1)
		}, CodeEqual, 3, nil},
		{"goes between the status and the kernel's answer", func(o *Observation, try int) {
			drop(o.After, 1)
			if try > 1 {
				o.First.drop(1)
				o.Second.drop(1)
			}
		}, CodeEqual, 2, nil},
		{"goes after it was judged", func(o *Observation, try int) {
			if try == 1 {
				sent(o, 1, flows.Transmit) // receive is judged
				return
			}
			o.First.drop(1)
			o.Second.drop(1)
		}, CodeEqual, 2, []Verdict{Equal}},
		{"comes meanwhile, and moves", func(o *Observation, try int) {
			if try == 1 {
				o.First.drop(1)
				o.Second.drop(1)
				sent(o, 2, flows.Transmit)
				return
			}
			sent(o, 1, flows.Transmit)
			sent(o, 1, flows.Receive)
		}, CodeEqual, MaxTries, nil},
		{"comes meanwhile, and rests", func(o *Observation, try int) {
			if try == 1 {
				o.First.drop(1)
				o.Second.drop(1)
				sent(o, 2, flows.Transmit)
			}
		}, CodeEqual, 2, []Verdict{Equal, Equal}},
		{"is nowhere to be seen", func(o *Observation, _ int) { drop(o.After, 1) }, CodeUndecided, MaxTries, []Verdict{Unknown, Unknown}},
		{"has another's name here", func(o *Observation, _ int) {
			device := o.After[1]
			device.Name = "eth0"
			o.After[1] = device
		}, CodeUndecided, MaxTries, []Verdict{Unknown, Unknown}},
		{"is attached again meanwhile", func(o *Observation, try int) {
			if try == 1 {
				sent(o, 1, flows.Transmit)
				sent(o, 1, flows.Receive)
				return
			}
			tell(o, 1, func(i *Interface) { i.Since = i.Since.Add(time.Second) })
		}, CodeEqual, 2, []Verdict{Equal, Equal}},
	}
}

func TestRound(t *testing.T) {
	for _, c := range append(quietCases(), comingCases()...) {
		t.Run(c.name, func(t *testing.T) {
			r, tries := NewRound(), 0
			for again := true; again; {
				tries++
				o := observe(t)
				c.change(o, tries)
				again = r.Try(o)
			}
			report := r.Report()
			var got []Verdict
			for _, row := range report.Rows {
				if row.Interface == "veth1" {
					got = append(got, row.Verdict)
				} else if row.Verdict != Equal {
					t.Errorf("%s: got %s, want %s", row.Interface, row.Verdict, Equal)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" || report.Code != c.code || tries != c.tries || report.Tries != tries {
				t.Errorf("got code %d after %d tries (%d in the report), want %d after %d; verdicts (-want +got):\n%s",
					report.Code, tries, report.Tries, c.code, c.tries, diff)
			}
			if len(report.Faults()) > 0 != (c.code == CodeUnequal) {
				t.Errorf("got faults %q with code %d", report.Faults(), c.code)
			}
		})
	}
}

// An invariant that failed in any scrape stays a fault.
func TestRoundRemembersInvariants(t *testing.T) {
	r := NewRound()
	for try := range 3 {
		o := observe(t)
		sent(o, 1, flows.Transmit)
		if try == 1 {
			o.Metrics[ConservationError][0].Value = 3
		}
		r.Try(o)
	}
	report := r.Report()
	if diff := cmp.Diff([]string{ConservationError + " = 0: got 3"}, report.Faults()); diff != "" || report.Code != CodeUnequal {
		t.Errorf("code %d (-want +got):\n%s", report.Code, diff)
	}
}
