// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// source answers from an observation, and keeps in which order it was asked.
type source struct {
	o     *Observation
	asked []string
	fails string // the question that has no answer
}

var errAsked = errors.New("no answer")

func (s *source) ask(what string) error {
	s.asked = append(s.asked, what)
	if what == s.fails {
		return errAsked
	}
	return nil
}

func (s *source) Drain(context.Context) error            { return s.ask("drain") }
func (s *source) Status(context.Context) (*Agent, error) { return s.o.Second, s.ask("status") }
func (s *source) Metrics(context.Context) ([]byte, error) {
	return expose(balanced()), s.ask("metrics")
}
func (s *source) kernel() (Kernel, error) { return s.o.After, s.ask("kernel") }

// The kernel's counters are read around the agent's answers, and these around the
// scrape: else nothing would be about one moment.
func TestRunAsksInOrder(t *testing.T) {
	s := &source{o: observe(t)}
	report, err := Run(t.Context(), s, s.kernel)
	if err != nil || report.Code != CodeEqual || report.Tries != 1 {
		t.Fatalf("got %+v, %v, want code %d at the first try", report, err, CodeEqual)
	}
	want := []string{"kernel", "drain", "status", "metrics", "status", "kernel"}
	if diff := cmp.Diff(want, s.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

// Whatever has no answer ends the round with that.
func TestRunFails(t *testing.T) {
	for _, what := range []string{"kernel", "drain", "status", "metrics"} {
		t.Run(fmt.Sprint("no ", what), func(t *testing.T) {
			s := &source{o: observe(t), fails: what}
			if report, err := Run(t.Context(), s, s.kernel); !errors.Is(err, errAsked) || report != nil {
				t.Errorf("got %+v, %v, want %v", report, err, errAsked)
			}
		})
	}
}
