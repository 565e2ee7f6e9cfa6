// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"path"
	"strings"

	"github.com/vishvananda/netlink"
)

// selector chooses the interfaces to be metered, by name.
type selector struct {
	include, exclude []string // globs
}

// ValidGlob reports whether a glob is one that [Options].Interfaces takes.
func ValidGlob(glob string) bool {
	name := strings.TrimPrefix(glob, "!")
	_, err := path.Match(name, "")
	return err == nil && name != ""
}

// newSelector takes the globs of a flag, as path.Match knows them; a leading !
// excludes.
func newSelector(flag string, globs []string) (selector, error) {
	var s selector
	for _, glob := range globs {
		name, excluded := strings.CutPrefix(glob, "!")
		if !ValidGlob(glob) {
			return selector{}, fmt.Errorf("%s: %q is not a glob such as 'veth*' or '!docker*'", flag, glob)
		}
		if excluded {
			s.exclude = append(s.exclude, name)
		} else {
			s.include = append(s.include, name)
		}
	}
	return s, nil
}

// wants reports whether a link is to be metered: one that a glob includes, or
// without such globs each veth whose other end is in another network namespace.
func (s selector) wants(l netlink.Link) bool {
	attrs := l.Attrs()
	if matches(s.exclude, attrs.Name) {
		return false
	}
	if len(s.include) > 0 {
		return matches(s.include, attrs.Name)
	}
	return isPodVeth(l)
}

// isPodVeth reports whether a link leads into another network namespace, as those
// of pods do.
func isPodVeth(l netlink.Link) bool { return l.Type() == "veth" && l.Attrs().NetNsID >= 0 }

func matches(globs []string, name string) bool {
	for _, glob := range globs {
		if ok, _ := path.Match(glob, name); ok { // newSelector has checked the glob
			return true
		}
	}
	return false
}
