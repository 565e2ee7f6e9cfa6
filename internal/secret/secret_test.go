// SPDX-License-Identifier: Apache-2.0

package secret

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

func TestAddress(t *testing.T) {
	for given, want := range map[string]string{
		"http://receiver.test/api/v1/write":     "http://receiver.test/api/v1/write",
		"http://user:pw@receiver.test/a":        "http://user:xxxxx@receiver.test/a",
		"http://token@receiver.test/a":          "http://xxxxx@receiver.test/a",
		"http://token:@receiver.test/a":         "http://xxxxx@receiver.test/a",
		"http://receiver.test/a?token=pw&b=c":   "http://receiver.test/a?b=xxxxx&token=xxxxx",
		"http://receiver.test/a?pw":             "http://receiver.test/a?xxxxx=xxxxx",
		"http://receiver.test/a#pw":             "http://receiver.test/a#xxxxx",
		"http://user:12/pw@receiver.test/a":     "http://xxxxx",
		"user:pw@receiver.test":                 "user:xxxxx",
		"http://user:p w@receiver.test/":        "xxxxx",
		"http://user:pw/more@receiver.test/a:b": "xxxxx",
	} {
		if got := Address(given); got != want {
			t.Errorf("%s: got %s, want %s", given, got, want)
		}
	}
}

func TestText(t *testing.T) {
	for given, want := range map[string]string{
		"nothing of a URL, a@b":                                  "nothing of a URL, a@b",
		`Get "https://192.0.2.1:6443/api": refused`:              `Get "https://192.0.2.1:6443/api": refused`,
		"to https://a.test/x and mail to b@c":                    "to https://a.test/x and mail to b@c",
		"to https://user:pw@a.test/x":                            "to https://xxxxx@a.test/x",
		"to https://token@a.test/x":                              "to https://xxxxx@a.test/x",
		"to https://user:p@w@a.test/x":                           "to https://xxxxx@a.test/x",
		"to https://user:p/w@a.test/x":                           "to https://xxxxx@a.test/x",
		`"http://user:p w@a.test/x" is none`:                     `"http://xxxxx@a.test/x" is none`,
		`"http://user:\"pw@a.test/x" is none`:                    `"http://xxxxx@a.test/x" is none`,
		`two: http://a:pw@b/ http://c:pw@d/`:                     `two: http://xxxxx@b/ http://xxxxx@d/`,
		`parse "http://a:pw/x@b": invalid port ":pw" after host`: `parse "http://xxxxx@b": invalid port after host`,
	} {
		if got := Text(given); got != want {
			t.Errorf("%s: got %s, want %s", given, got, want)
		}
	}
}

func TestFile(t *testing.T) {
	if err := File(nil); err != nil {
		t.Errorf("got %v of nil", err)
	}
	inner := errors.New("line 3: cannot unmarshal !!str `passwor...` into config.BasicAuth, \"a \\\" pw\"; could not parse: http://u:\"p w@a/; line 4: field Passw0rd not found, field typo not found; open /a: none")
	err := File(inner)
	if want := `line 3: cannot unmarshal !!str "xxxxx" into config.BasicAuth, "xxxxx"; could not parse: "xxxxx"a/; line 4: field xxxxx not found, field typo not found; open /a: none`; err.Error() != want || !errors.Is(err, inner) {
		t.Errorf("got %v, want %s and that it wraps", err, want)
	}
}

func TestRequest(t *testing.T) {
	refused := errors.New("refused")
	err := Request(fmt.Errorf("ask: %w", &url.Error{Op: "Post", URL: "http://user:***@a.test/?token=pw", Err: refused}))
	if got, want := err.Error(), `ask: Post "http://user:xxxxx@a.test/?token=xxxxx": refused`; got != want || !errors.Is(err, refused) {
		t.Errorf("got %s, want %s and that it wraps", got, want)
	}
	_, err = url.Parse(strings.Replace("http://user:p_w@a.test/", "_", " ", 1))
	if err = Request(err); strings.Contains(err.Error(), "p w") {
		t.Errorf("got %v", err)
	}
	if err := Request(refused); err != refused { //nolint:errorlint // the same one
		t.Errorf("got %v, want the error as it is", err)
	}
}
