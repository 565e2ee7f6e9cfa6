// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"path/filepath"

	"github.com/podmeter/podmeter/internal/regular"
	"github.com/podmeter/podmeter/internal/secret"
	"github.com/prometheus/exporter-toolkit/web"
)

// checkWebConfig checks a web configuration file, and first that it and the files it names
// are files, as the library would wait for a pipe; nothing if the path is empty.
func checkWebConfig(path string) error {
	if path == "" {
		return nil
	}
	content, err := regular.Read(path, regular.ConfigLimit)
	if err != nil {
		return err
	}
	if err := regular.NamedBy(content, filepath.Dir(path)).Check(); err != nil {
		return err
	}
	return secret.File(web.Validate(path))
}
