// SPDX-License-Identifier: Apache-2.0

// Package secret keeps passwords, tokens and keys out of what is logged, shown or exported:
// those in URLs ([URL], [Text]), those in configuration files with a fault ([File]), and
// those that a server repeats in its answer ([Transport]).
//
// It is for texts that leave the process; what is sent to a receiver stays as it is.
package secret

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Mask stands in for a secret, as [url.URL.Redacted] has it.
const Mask = "xxxxx"

// URL returns an address without secrets: without the password, without a user that has
// none, as that is a token, and without the values of the query.
func URL(u *url.URL) string {
	shown := *u
	if u.User != nil {
		shown.User = url.User(Mask)
		if password, _ := u.User.Password(); password != "" {
			shown.User = url.UserPassword(u.User.Username(), Mask)
		}
	}
	if strings.Contains(shown.Opaque, "@") { // without //
		shown.Opaque = Mask
	}
	if u.RawQuery != "" {
		var names []string
		for pair := range strings.SplitSeq(u.RawQuery, "&") {
			name, _, valued := strings.Cut(pair, "=")
			if !valued {
				name = Mask
			}
			names = append(names, name+"="+Mask)
		}
		slices.Sort(names)
		shown.RawQuery = strings.Join(names, "&")
	}
	if shown.Fragment != "" {
		shown.Fragment, shown.RawFragment = Mask, ""
	}
	if strings.Contains(shown.Path, "@") { // of a password with a slash
		shown.Host, shown.Path, shown.RawPath = Mask, "", ""
	}
	return shown.String()
}

// Address is [URL] of a text; what is no URL is masked as a whole.
func Address(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return Mask
	}
	return URL(u)
}

// users match what is before the @ of a URL in a text: in quotes it may have anything, else
// no space, and a slash only if a colon says that there is a password.
var users = regexp.MustCompile(`(://)(?:[^\s"]*:[^\s"]*|[^\s"'@/]*)@|("[A-Za-z][A-Za-z0-9+.-]*://)(?:[^"\\]|\\.)*@|(invalid port) "[^"]*"`)

// Text masks users and passwords of the URLs in a text, whatever made it.
func Text(text string) string {
	if !strings.Contains(text, "://") {
		return text
	}
	return users.ReplaceAllStringFunc(text, func(found string) string {
		switch parts := users.FindStringSubmatch(found); {
		case parts[3] != "":
			return parts[3]
		case parts[2] != "":
			return parts[2] + Mask + "@"
		}
		return "://" + Mask + "@"
	})
}

// values match what decoders repeat of a file: YAML between backquotes, all else between
// quotes, and URLs as they are.
var values = regexp.MustCompile("`[^`]*`" + `|"(?:[^"\\]|\\.)*"|\S*://.*@`)

// keys match what YAML's decoder says of a key that it does not know. Those of settings are
// in lower case; what is none may be a secret in the wrong place.
var keys = regexp.MustCompile(`field (.*?) not found`)

var isSetting = regexp.MustCompile(`^[a-z_]{1,40}$`).MatchString

// File masks what the error of a decoder repeats of a file that has secrets, and keeps line
// and reason. It is nil for nil, and otherwise wraps the error.
func File(err error) error {
	if err == nil {
		return nil
	}
	return &masked{err, Quoted(err.Error())}
}

// Request masks the URL in the error of a request; nil for nil.
func Request(err error) error {
	failed := new(url.Error)
	if !errors.As(err, &failed) {
		return err
	}
	return &masked{err, strings.ReplaceAll(err.Error(), failed.URL, Address(failed.URL))}
}

// Quoted is what [File] does, of a text.
func Quoted(text string) string {
	text = values.ReplaceAllString(Text(text), `"`+Mask+`"`)
	return keys.ReplaceAllStringFunc(text, func(found string) string {
		if isSetting(keys.FindStringSubmatch(found)[1]) {
			return found
		}
		return "field " + Mask + " not found"
	})
}

// masked is an error with another text.
type masked struct {
	error
	text string
}

// Error implements error.
func (m *masked) Error() string { return m.text }

// Unwrap returns the error.
func (m *masked) Unwrap() error { return m.error }
