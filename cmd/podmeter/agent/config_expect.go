// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
)

// FlagError returns what is wrong with a command line, as a [UsageError], of the error
// of its parser.
func FlagError(fs *pflag.FlagSet, err error) error {
	var (
		invalid *pflag.InvalidValueError
		missing *pflag.ValueRequiredError
		unknown *pflag.NotExistError
	)
	switch {
	case errors.As(err, &invalid):
		err = refused(invalid.GetFlag(), invalid.GetValue(), invalid.Unwrap())
	case errors.As(err, &missing):
		what, _ := pflag.UnquoteUsage(missing.GetFlag())
		err = NewFault(missing.GetFlag().Name, "", "a value is expected, the %s, after a space or an equals sign", what)
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		if name := closest(unknown.GetSpecifiedName(), flagNames(fs)); name != "" {
			err = fmt.Errorf("%w; is it --%s?", err, name)
		}
	}
	return Usage(err)
}

// refused is the fault of a value that a flag did not take, and says what it takes
// instead of how the value was parsed.
func refused(flag *pflag.Flag, value string, cause error) error {
	why := expected(flag, value)
	if why == "" {
		why = cause.Error()
	}
	return &Fault{Flag: flag.Name, Value: strconv.Quote(value), Why: why}
}

// expected says what a flag takes, and what the value may have been meant to be; empty
// for a flag that takes anything.
func expected(flag *pflag.Flag, value string) string {
	var what, meant string
	switch flag.Value.Type() {
	case "bool":
		return "true or false is expected"
	case "duration":
		what, meant = "a number with its unit is expected, such as 5s, 500ms or 1h30m", meantDuration(value)
	case "int":
		what, meant = "a whole number is expected, such as "+flag.DefValue, meantNumber(value)
	case "memory":
		what, meant = "a number of bytes is expected, such as 64Mi, 100M or 67108864", meantSize(value)
	case "stringSlice":
		return `values with commas between them are expected; one that has a comma or a quote itself is put in double quotes, a quote in it twice`
	default:
		return ""
	}
	if meant != "" {
		what += "; is it " + meant + "?"
	}
	return what
}

// meantDuration returns what a text is likely to mean as a duration, empty if nobody
// knows: "10", "5 s", "1,5h", "2 days".
func meantDuration(text string) string {
	units := map[string]string{
		"": "s", "s": "s", "sec": "s", "second": "s", "m": "m", "min": "m", "minute": "m", "h": "h", "hr": "h", "hour": "h",
		"d": "d", "day": "d", "ms": "ms", "msec": "ms", "millisecond": "ms",
	}
	text = strings.ToLower(strings.ReplaceAll(strings.TrimSpace(text), ",", "."))
	if !regexp.MustCompile(`^([0-9]+(\.[0-9]+)?\s*[a-z]*\s*)+$`).MatchString(text) {
		return ""
	}
	var sum time.Duration
	for _, part := range regexp.MustCompile(`([0-9.]+)\s*([a-z]*)`).FindAllStringSubmatch(text, -1) {
		number, unit := part[1], units[part[2]]
		if unit == "" {
			unit = units[strings.TrimSuffix(part[2], "s")]
		}
		times := time.Duration(1)
		if unit == "d" {
			unit, times = "h", 24
		}
		d, err := time.ParseDuration(number + unit)
		if unit == "" || err != nil {
			return ""
		}
		sum += d * times
	}
	return short(sum)
}

// short is a duration without the units that are 0: 10m for 10m0s.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// meantNumber returns what a text is likely to mean as a whole number, empty if nobody
// knows: "2,000", "2k", "1e3".
func meantNumber(text string) string {
	text = strings.TrimSpace(text)
	if regexp.MustCompile(`^[0-9]{1,3}([,.' ][0-9]{3})+$`).MatchString(text) {
		return regexp.MustCompile(`[,.' ]`).ReplaceAllString(text, "")
	}
	q, err := resource.ParseQuantity(text)
	if err != nil || q.Sign() < 0 || q.CmpInt64(q.Value()) != 0 {
		return ""
	}
	return strconv.FormatInt(q.Value(), 10)
}

// meantSize returns what a text is likely to mean as a number of bytes, empty if nobody
// knows: "64MB", "1 GiB", "64mb".
func meantSize(text string) string {
	match := regexp.MustCompile(`^([0-9]+)(?:[.,]([0-9]+))?\s*([kmgt]?)(i?)b?(?:ytes?)?$`).FindStringSubmatch(strings.ToLower(strings.TrimSpace(text)))
	if match == nil {
		return ""
	}
	number, unit := match[1], strings.ToUpper(match[3])
	if match[2] != "" {
		number += "." + match[2]
	}
	switch {
	case unit == "" && match[4] != "":
		return ""
	case unit == "":
		return number
	case match[4] != "":
		return number + unit + "i"
	}
	return fmt.Sprintf("%s%s or %s%si", number, strings.Replace(unit, "K", "k", 1), number, unit)
}
