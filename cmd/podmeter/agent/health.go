// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"time"
)

// lateness is how much later than due a drain may end before the agent is taken for
// stuck: a node without a free CPU takes seconds for one.
const lateness = 30 * time.Second

// health returns an error if drains do not go on. An agent that waits for the API server
// at its start has none yet, and does not wait for ever.
func (a *Agent) health() error {
	began := a.metering.Load()
	if began == nil {
		return nil
	}
	drain := a.lastDrain()
	last := *began
	if drain.Ended.After(last) {
		last = drain.Ended
	}
	err := overdue(time.Since(last), a.config.DrainInterval)
	if err != nil && drain.Problem != "" {
		return fmt.Errorf("%w: %s", err, drain.Problem)
	}
	return err
}

// overdue returns an error if the last drain was too long ago.
func overdue(age, interval time.Duration) error {
	if age <= interval+lateness {
		return nil
	}
	return fmt.Errorf("the last drain ended %v ago, and one is due every %v", age.Round(time.Second), interval)
}
