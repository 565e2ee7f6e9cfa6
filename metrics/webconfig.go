// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"log/slog"
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

// webLog is a [slog.Handler] for exporter-toolkit, which reads the file for each connection
// and quotes it where it has turned bad.
type webLog struct{ slog.Handler }

// Handle implements [slog.Handler].
func (w webLog) Handle(ctx context.Context, record slog.Record) error {
	masked := slog.NewRecord(record.Time, record.Level, record.Message, record.PC)
	record.Attrs(func(a slog.Attr) bool {
		if a.Key == "err" {
			a.Value = slog.StringValue(secret.Quoted(a.Value.String()))
		}
		masked.AddAttrs(a)
		return true
	})
	return w.Handler.Handle(ctx, masked)
}

// WithAttrs implements [slog.Handler].
func (w webLog) WithAttrs(attrs []slog.Attr) slog.Handler { return webLog{w.Handler.WithAttrs(attrs)} }

// WithGroup implements [slog.Handler].
func (w webLog) WithGroup(name string) slog.Handler { return webLog{w.Handler.WithGroup(name)} }
