// SPDX-License-Identifier: Apache-2.0

package plain

import "log/slog"

// Attr is the ReplaceAttr of a log's handler options: it makes the texts of a line plain
// and bounds them, those of errors and of the libraries' own lines too. Line breaks stay,
// which handlers escape.
func Attr(_ []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(Lines(a.Value.String(), LogLimit))
	case slog.KindAny:
		a.Value = anyValue(a.Value)
	}
	return a
}

func anyValue(v slog.Value) slog.Value {
	switch of := v.Any().(type) {
	case error:
		return slog.StringValue(Lines(of.Error(), LogLimit))
	case []string:
		texts := make([]string, len(of))
		for i := range of {
			texts[i] = Lines(of[i], MessageLimit)
		}
		return slog.AnyValue(texts)
	}
	return v
}
