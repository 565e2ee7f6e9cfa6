// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"

	"github.com/spf13/pflag"
)

// Fault is what is wrong with the value of a setting. It names the setting as the user
// wrote it: as a flag, unless [Locate] says where else.
type Fault struct {
	// Flag is the name of the setting, without dashes.
	Flag string
	// Value is the value as it is shown; empty for one that is better not shown.
	Value string
	// Why says what is expected.
	Why string

	// err is what came of the value, nil if nothing was done with it yet.
	err error
	// where is the variable, or the line of the file, that has the value; empty for the
	// command line and for defaults.
	where string
}

// NewFault returns a [Fault] as an error: "--attach xdp: one of … is expected".
func NewFault(flag string, value any, format string, args ...any) error {
	return &Fault{Flag: flag, Value: fmt.Sprint(value), Why: fmt.Sprintf(format, args...)}
}

// about says which flag an error is about; nil stays nil.
func about(flag string, err error) error {
	if err == nil {
		return nil
	}
	return &Fault{Flag: flag, Why: err.Error(), err: err}
}

// Unwrap returns what came of the value.
func (f *Fault) Unwrap() error { return f.err }

// Error implements error.
func (f *Fault) Error() string {
	switch {
	case f.where == "" && f.Value == "":
		return fmt.Sprintf("--%s: %s", f.Flag, f.Why)
	case f.where == "":
		return fmt.Sprintf("--%s %s: %s", f.Flag, f.Value, f.Why)
	case f.Value == "":
		return fmt.Sprintf("%s: %s", f.where, f.Why)
	}
	return fmt.Sprintf("%s: %s: %s", f.where, f.Value, f.Why)
}

// whereAnnotation is the annotation of a flag that [Load] has set: where its value was
// written.
const whereAnnotation = "podmeter/where"

// writtenAt notes where the value of a flag was written.
func writtenAt(flag *pflag.Flag, where string) {
	if flag.Annotations == nil {
		flag.Annotations = make(map[string][]string)
	}
	flag.Annotations[whereAnnotation] = []string{where}
}

// Locate makes each [Fault] of an error name the variable or the line of the file that
// [Load] took the value from.
func Locate(fs *pflag.FlagSet, err error) {
	if fault, ok := err.(*Fault); ok {
		if flag := fs.Lookup(fault.Flag); flag != nil && len(flag.Annotations[whereAnnotation]) > 0 {
			fault.where = flag.Annotations[whereAnnotation][0]
		}
		return
	}
	switch wrapping := err.(type) {
	case interface{ Unwrap() error }:
		Locate(fs, wrapping.Unwrap())
	case interface{ Unwrap() []error }:
		for _, err := range wrapping.Unwrap() {
			Locate(fs, err)
		}
	}
}
