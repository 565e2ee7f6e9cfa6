// SPDX-License-Identifier: Apache-2.0

package regular

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Named are files that a configuration file names.
type Named []string

// NamedBy returns the files that a YAML configuration of Prometheus, or a kubeconfig, names:
// the values of keys such as password_file and certificate-authority, and lists under files.
// Relative paths are below the directory. What is no YAML names none, and is left to its own
// reader.
func NamedBy(content []byte, directory string) Named {
	var root yaml.Node
	if yaml.Unmarshal(content, &root) != nil {
		return nil
	}
	var all Named
	walk(&root, make(map[*yaml.Node]bool), func(path string) {
		if !filepath.IsAbs(path) {
			path = filepath.Join(directory, path)
		}
		all = append(all, path)
	})
	return all
}

// walk calls found with each value that is the path of a file, also by an alias. Other aliases are
// not followed: what they stand for is walked through in its own place. Nor is a list of paths a second
// time, as aliases may repeat it as often as it is long.
func walk(n *yaml.Node, seen map[*yaml.Node]bool, found func(path string)) {
	for i, child := range n.Content {
		key, path := "", ""
		if n.Kind == yaml.MappingNode && i%2 == 1 {
			key = target(n.Content[i-1]).Value
		}
		switch list := target(child); {
		case isPath(key) && child.Decode(&path) == nil:
			if path != "" {
				found(path)
			}
		case key == "files" && list.Kind == yaml.SequenceNode:
			for _, item := range list.Content {
				if !seen[list] && item.Decode(&path) == nil {
					found(path)
				}
			}
			seen[list] = true
		default:
			walk(child, seen, found)
		}
	}
}

// target is the node that an alias stands for.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isPath(key string) bool {
	switch key {
	case "certificate-authority", "client-certificate", "client-key", "tokenFile":
		return true
	}
	return strings.HasSuffix(key, "_file")
}

var errContent = errors.New("a file that it names: a path is expected, and not the content of a file")

// Check says which of the files would not be read, and why. What is not there is left to its
// own reader, who may not want it.
func (n Named) Check() error {
	var errs []error
	for _, path := range n {
		if strings.Contains(path, "\n") { // which would repeat a key
			errs = append(errs, errContent)
			continue
		}
		if err := Check(path, ConfigLimit); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("a file that it names: %w", err))
		}
	}
	return errors.Join(errs...)
}
