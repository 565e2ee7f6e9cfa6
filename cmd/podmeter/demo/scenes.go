// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/verify"
)

// scene is something that happens at a time of the demo.
type scene struct {
	at   time.Duration
	play func(context.Context) error
}

// scenes are in the order of their times; the last one is the end.
func (s *show) scenes() []scene {
	d := s.options.Duration
	return []scene{
		{d * 15 / 100, s.scaleUp},
		{d * 30 / 100, s.startJob},
		{d * 70 / 100, s.endJob},
		{d, func(context.Context) error { return nil }},
	}
}

// scaleUp adds a replica, which is busy before the agent can have seen it.
func (s *show) scaleUp(context.Context) error {
	web, err := s.world.addPod(webPod(3))
	if err != nil {
		return err
	}
	s.screen.event("pod %s added: one more replica", web.podPlan)
	return s.replica.startReplica(s.world, web)
}

func (s *show) startJob(context.Context) error {
	job, err := s.world.addPod(jobPod())
	if err != nil {
		return err
	}
	s.screen.event("pod %s added: a batch job", job.podPlan)
	s.job.startJob(job)
	return nil
}

// endJob lets the job finish, and deletes its pod when its last packet is over
// and the agent has had time to see it.
func (s *show) endJob(ctx context.Context) error {
	job := s.world.pods[jobPod().String()]
	if err := errors.Join(s.job.stop(), s.awaitReady(ctx, job.device())); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, quietWithin)
	defer cancel()
	own, err := s.world.quiet(bounded, job.device())
	if err != nil {
		return err
	}
	metered, err := s.metered(ctx)
	if err != nil {
		return err
	}
	if err := s.world.removePod(job); err != nil {
		return err
	}
	s.departed = append(s.departed, departed{job.podPlan, own[job.device()], metered[job.device()]})
	s.screen.event("pod %s deleted: the job is done", job.podPlan)
	return nil
}

// finish stops all traffic and holds the agent's numbers against the kernel's.
func (s *show) finish(ctx context.Context) error {
	if err := s.refresh(ctx); err != nil {
		return err
	}
	s.screen.final(s.last)
	s.screen.event("traffic stops: %v", s.tally)
	err := errors.Join(s.stopTraffic(), s.tally.err())
	if err != nil {
		return fmt.Errorf("make traffic: %w", err)
	}
	books, err := s.settle(ctx)
	if err != nil {
		return err
	}
	report := books.reconcile()
	report.write(s.screen)
	return report.err()
}

// settle compares both sides while nothing moves, and again where a late packet, such as
// a multicast report of IPv6, came between.
func (s *show) settle(ctx context.Context) (*books, error) {
	bounded, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	round := verify.NewRound()
	for {
		if _, err := s.world.quiet(bounded, s.world.devices()...); err != nil {
			return nil, err
		}
		observation, err := verify.Observe(bounded, s.agent, s.world.kernel)
		if err != nil {
			return nil, err
		}
		if !round.Try(observation) {
			return s.books(round.Report(), observation), nil
		}
	}
}

// books are the report with what the demo knows besides.
func (s *show) books(r *verify.Report, last *verify.Observation) *books {
	b := &books{Report: r, exposition: last.Metrics, metered: byDevice(last.Second)}
	for _, p := range s.world.pods {
		b.living(podOf(p.podPlan), p.device())
	}
	for _, d := range s.departed {
		b.departed(d, d.device(), last.Second.Parts())
	}
	return b
}
