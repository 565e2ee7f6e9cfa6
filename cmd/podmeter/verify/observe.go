// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"
)

// Source is an agent that answers.
type Source interface {
	// Drain publishes all that was counted before the call.
	Drain(context.Context) error
	// Status returns what the agent says of itself.
	Status(context.Context) (*Agent, error)
	// Metrics returns what the agent exports, in the text format.
	Metrics(context.Context) ([]byte, error)
}

// Observe looks at both sides once, in the order that [Observation] says. kernel reads
// the interfaces' own counters in the agent's network namespace.
func Observe(ctx context.Context, source Source, kernel func() (Kernel, error)) (o *Observation, err error) {
	o = &Observation{}
	if o.Before, err = kernel(); err != nil {
		return nil, err
	}
	if err := source.Drain(ctx); err != nil {
		return nil, err
	}
	if o.First, err = source.Status(ctx); err != nil {
		return nil, err
	}
	text, err := source.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	if o.Metrics, err = Parse(text); err != nil {
		return nil, err
	}
	if o.Second, err = source.Status(ctx); err != nil {
		return nil, err
	}
	o.After, err = kernel()
	return o, err
}

// Run makes a round, and returns its report.
func Run(ctx context.Context, source Source, kernel func() (Kernel, error)) (*Report, error) {
	r := NewRound()
	for again := true; again; {
		o, err := Observe(ctx, source, kernel)
		if err != nil {
			return nil, err
		}
		again = r.Try(o)
	}
	return r.Report(), nil
}
