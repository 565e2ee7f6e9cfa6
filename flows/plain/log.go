// SPDX-License-Identifier: Apache-2.0

package plain

import (
	"fmt"
	"log/slog"

	"github.com/podmeter/podmeter/internal/secret"
)

// Attr is the ReplaceAttr of a log's handler options: it makes the texts of a line plain
// and bounds them and masks passwords of URLs, those of errors and of the libraries' own lines too. Line breaks stay,
// which handlers escape.
func Attr(_ []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(Lines(secret.Text(a.Value.String()), LogLimit))
	case slog.KindAny:
		a.Value = anyValue(a.Value)
	}
	return a
}

func anyValue(v slog.Value) slog.Value {
	switch of := v.Any().(type) {
	case error:
		return slog.StringValue(Lines(secret.Text(of.Error()), LogLimit))
	case []string:
		texts, left := make([]string, 0, len(of)), LogLimit
		for _, text := range of {
			text = Lines(secret.Text(text), MessageLimit)
			if left -= len(text); left < 0 {
				texts = append(texts, fmt.Sprintf("%d more", len(of)-len(texts)))
				break
			}
			texts = append(texts, text)
		}
		return slog.AnyValue(texts)
	}
	if text := fmt.Sprintf("%+v", v.Any()); len(text) > LogLimit { // a list of others' making
		return slog.StringValue(Lines(text, LogLimit))
	}
	return v
}
