// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/pflag"
)

// The flag that said how many classic buckets RTTs have, and the one that it has become.
const (
	formerRTTBuckets  = "rtt-buckets"
	rttClassicBuckets = "rtt-classic-buckets"
)

// formerValue is the value of a flag that is another now: it is kept until all are read, as
// the other goes before it wherever both were written.
type formerValue string

func addFormerFlags(fs *pflag.FlagSet) {
	fs.Var(new(formerValue), formerRTTBuckets,
		"deprecated, is --"+rttClassicBuckets+" now: a `number` of fine or coarse is true, off is false")
}

// String implements [pflag.Value].
func (v *formerValue) String() string { return string(*v) }

// Type implements [pflag.Value].
func (v *formerValue) Type() string { return "former" }

// Set implements [pflag.Value]. Nothing is as if it was not given.
func (v *formerValue) Set(text string) error {
	if text != "" && !slices.Contains(Choices(formerRTTBuckets), text) {
		return errors.New(oneOf(formerRTTBuckets) + " is expected")
	}
	*v = formerValue(text)
	return nil
}

// setFromFormer gives a flag the value that was written for what it was before, and warns
// of that.
func setFromFormer(fs *pflag.FlagSet) (warnings []string) {
	former, now := fs.Lookup(formerRTTBuckets), fs.Lookup(rttClassicBuckets)
	if former == nil || former.Value.String() == "" {
		return nil
	}
	where := "--" + former.Name
	if at := former.Annotations[whereAnnotation]; len(at) > 0 {
		where = at[0]
	}
	if now.Changed || len(now.Annotations[whereAnnotation]) > 0 {
		return []string{fmt.Sprintf("%s is --%s now, which is given too: it is ignored", where, now.Name)}
	}
	value := "true"
	if former.Value.String() == "off" {
		value = "false"
	}
	if err := now.Value.Set(value); err != nil {
		return []string{err.Error()}
	}
	return []string{fmt.Sprintf("%s is --%s now, with seven bounds from 977 us to 4 s: %s is read as %s; write that instead",
		where, now.Name, former.Value, value)}
}
