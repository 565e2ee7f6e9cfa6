// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/podmeter/podmeter/internal/regular"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// envPrefix begins the environment variable of every flag.
const envPrefix = "PODMETER_"

// EnvName returns the environment variable of a flag: PODMETER_LOG_LEVEL for
// log-level.
func EnvName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Load gives the flags of fs that the command line left alone their values from
// the environment, and those that are left then from the YAML file that the flag
// config names, if fs has one. So a flag goes before a variable, that before the
// file, and that before the default. An empty variable counts as not set.
//
// The file may hold any flag of the agent, so that other commands can read the
// agent's own: what is not in fs they pass over. Every fault found is in the
// error, a [UsageError]. The warnings name variables that look like ours and are no flag, and
// flags that are others now.
func Load(fs *pflag.FlagSet, environ []string) (warnings []string, err error) {
	env := variables(environ)
	faults := setFromEnvironment(fs, env)
	if config := fs.Lookup("config"); config != nil && config.Value.String() != "" {
		faults = append(faults, setFromFile(fs, config.Value.String()))
	}
	err = errors.Join(faults...)
	Locate(fs, err)
	return append(strangers(fs, env), setFromFormer(fs)...), Usage(err)
}

func setFromEnvironment(fs *pflag.FlagSet, env map[string]string) (faults []error) {
	fs.VisitAll(func(flag *pflag.Flag) {
		name := EnvName(flag.Name)
		value := env[name]
		if value == "" || flag.Changed || flag.Name == "help" {
			return
		}
		writtenAt(flag, name+" in the environment")
		if err := flag.Value.Set(value); err != nil {
			faults = append(faults, refused(flag, value, err))
		}
		flag.Changed = true
	})
	return faults
}

// variables returns the environment as a map.
func variables(environ []string) map[string]string {
	env := make(map[string]string, len(environ))
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		env[name] = value
	}
	return env
}

// strangers warns of variables with our prefix that name no flag.
func strangers(fs *pflag.FlagSet, env map[string]string) (warnings []string) {
	var known []string
	for _, flag := range slices.Concat(flagNames(fs), flagNames(agentFlags())) {
		known = append(known, EnvName(flag))
	}
	serviceLink := serviceLinks()
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if strings.HasPrefix(name, envPrefix) && !slices.Contains(known, name) && !serviceLink.MatchString(name) {
			warning := name + " in the environment names no flag and is ignored"
			if meant := closest(name, known); meant != "" {
				warning += "; is it " + meant + "?"
			}
			warnings = append(warnings, warning)
		}
	}
	return warnings
}

// serviceLinks matches the variables that Kubernetes gives every pod of a
// namespace for a Service that is called podmeter, or podmeter-something.
func serviceLinks() *regexp.Regexp {
	return regexp.MustCompile(`^PODMETER_(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)
}

// agentFlags returns all flags of an agent, to know their names by.
func agentFlags() *pflag.FlagSet {
	fs := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	c := Defaults()
	AddFlags(fs, &c)
	return fs
}

func setFromFile(fs *pflag.FlagSet, file string) error {
	content, err := regular.Read(file, regular.ConfigLimit)
	if err != nil {
		return fmt.Errorf("read --config: %w", err)
	}
	settings, err := parseSettings(content)
	if err != nil {
		return fmt.Errorf("parse --config %s: %w%s", file, err, tabbed(content))
	}
	var faults []error
	known := agentFlags()
	for _, s := range settings {
		where := fmt.Sprintf("%s:%d: %s", file, s.line, s.key)
		if err := s.apply(fs, known, where); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", where, err))
		}
	}
	return errors.Join(faults...)
}

// tabbed says that a line of a file that YAML cannot read begins with a tab, as editors
// show no difference; empty if none does.
func tabbed(content []byte) string {
	for n, line := range bytes.Split(content, []byte("\n")) {
		if indent := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]; bytes.ContainsRune(indent, '\t') {
			return fmt.Sprintf("; line %d begins with a tab, and YAML takes spaces alone", n+1)
		}
	}
	return ""
}

// setting is one key of the file and what stands behind it.
type setting struct {
	key   string
	line  int
	value *yaml.Node
	again bool // the key was there before
}

// parseSettings takes one YAML document that is a mapping, or none.
func parseSettings(content []byte) ([]setting, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("one YAML document is expected, there is a second")
	}
	top := document.Content[0]
	if top.Tag == "!!null" {
		return nil, nil
	}
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: a mapping of flags to values is expected, such as 'log-level: debug'", top.Line)
	}
	settings := make([]setting, 0, len(top.Content)/2)
	seen := make(map[string]bool)
	for i := 0; i < len(top.Content); i += 2 {
		key := top.Content[i]
		settings = append(settings, setting{
			key: key.Value, line: key.Line, value: top.Content[i+1], again: seen[key.Value],
		})
		seen[key.Value] = true
	}
	return settings, nil
}

// apply sets the flag that the key names, unless it is set already or is
// another command's.
func (s setting) apply(fs, known *pflag.FlagSet, where string) error {
	switch {
	case s.key == "config":
		return errors.New("no such setting; a file cannot name another")
	case known.Lookup(s.key) == nil:
		return errors.New("no such setting; " + suggestion(s.key, flagNames(known)) + "'podmeter agent --help' lists them")
	case s.again:
		return errors.New("given twice")
	}
	flag := fs.Lookup(s.key)
	if flag == nil || flag.Changed {
		flag = known.Lookup(s.key) // is its value good, though nobody wants it?
	}
	writtenAt(flag, where)
	return setNode(flag, s.value)
}

// suggestion is the begin of a sentence that names the closest name, empty without one.
func suggestion(unknown string, names []string) string {
	if name := closest(unknown, names); name != "" {
		return "is it " + name + "? "
	}
	return ""
}

// setNode sets a flag from a scalar, or one that takes several from a sequence
// too. Null leaves it as it is.
func setNode(flag *pflag.Flag, node *yaml.Node) error {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	switch node.Kind {
	case yaml.ScalarNode:
		return setScalar(flag, node)
	case yaml.SequenceNode:
		list, ok := flag.Value.(pflag.SliceValue)
		if !ok {
			return errors.New("one value is expected, not a list")
		}
		values, err := scalars(node.Content)
		if err != nil {
			return err
		}
		return list.Replace(values)
	}
	return errors.New("a value or a list of values is expected, not a mapping")
}

func setScalar(flag *pflag.Flag, node *yaml.Node) error {
	if node.Tag == "!!null" {
		return nil
	}
	if err := untagged(node); err != nil {
		return err
	}
	value := node.Value
	if on := false; flag.Value.Type() == "bool" && node.Decode(&on) == nil {
		value = strconv.FormatBool(on) // also of yes, no, on and off, as kubectl and helm read them
	}
	if err := flag.Value.Set(value); err != nil {
		return fmt.Errorf("%q: %s", value, cmp.Or(expected(flag, value), err.Error()))
	}
	return nil
}

func scalars(nodes []*yaml.Node) ([]string, error) {
	values := make([]string, 0, len(nodes))
	for _, node := range nodes {
		if node.Kind != yaml.ScalarNode || node.Tag == "!!null" {
			return nil, fmt.Errorf("line %d: a list of plain values is expected", node.Line)
		}
		if err := untagged(node); err != nil {
			return nil, err
		}
		values = append(values, node.Value)
	}
	return values, nil
}

// untagged refuses what YAML takes for a tag: a glob that excludes, not quoted.
func untagged(node *yaml.Node) error {
	if tag := node.Tag; strings.HasPrefix(tag, "!") && !strings.HasPrefix(tag, "!!") {
		return fmt.Errorf("line %d: YAML reads %s as a tag; put it in quotes", node.Line, tag)
	}
	return nil
}
