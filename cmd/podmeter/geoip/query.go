// SPDX-License-Identifier: Apache-2.0

package geoip

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/internal/httpfile"
	"github.com/podmeter/podmeter/internal/redirect"
	"github.com/podmeter/podmeter/internal/secret"
	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// maxAnswer bounds an answer, in bytes: a row takes some 200, and who draws a
// million on a map has forgotten topk.
const maxAnswer = 64 << 20

// What came of a query: the values of the label result.
const (
	queryAnswered    = "answered"
	queryTimeout     = "timeout"     // within --timeout, or within Prometheus' own
	queryUnreachable = "unreachable" // no connection, or it broke
	queryRefused     = "refused"     // Prometheus does not take the query, or cannot execute it
	queryBadAnswer   = "bad_answer"  // no API, no right, an error of the server's, too large, or a redirect elsewhere
	queryNoVector    = "no_vector"   // a scalar or a range
)

// queryResults are all of them.
func queryResults() []string {
	return []string{queryAnswered, queryTimeout, queryUnreachable, queryRefused, queryBadAnswer, queryNoVector}
}

var errNoVector = errors.New("no vector")

// asker asks Prometheus one query.
type asker struct {
	api     promv1.API
	query   string
	timeout time.Duration
	close   func() // idle connections
}

// newAsker returns an asker for a valid configuration. An error is the HTTP
// configuration file's.
func newAsker(config Config) (*asker, error) {
	client := &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone(), CheckRedirect: redirect.SameHost}
	if config.HTTPConfigFile != "" {
		var err error
		if client, err = httpfile.Client(config.HTTPConfigFile, "podmeter"); err != nil {
			return nil, agent.Usage(fmt.Errorf("--http-config-file: %w", err))
		}
	}
	client.Transport = bounded{secret.Transport(client.Transport)}
	prometheus, err := api.NewClient(api.Config{Address: config.PrometheusURL, Client: client})
	if err != nil {
		return nil, fmt.Errorf("make client of Prometheus: %w", err)
	}
	return &asker{
		api: promv1.NewAPI(prometheus), query: config.Query, timeout: config.Timeout, close: client.CloseIdleConnections,
	}, nil
}

// ask returns the rows of the answer, and what Prometheus warns of.
func (a *asker) ask(ctx context.Context) (model.Vector, promv1.Warnings, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	value, warnings, _, err := a.api.Query(ctx, a.query, time.Time{}, promv1.WithTimeout(a.timeout))
	if err != nil {
		return nil, nil, secret.Request(explained(err))
	}
	if value == nil { // which the client takes for a success
		return nil, nil, badAnswer("the answer has no data")
	}
	vector, ok := value.(model.Vector)
	if !ok {
		return nil, nil, fmt.Errorf("%w: the query gives a %s, an instant vector is expected", errNoVector, value.Type())
	}
	if slices.Contains(vector, nil) {
		return nil, nil, badAnswer("a row is null")
	}
	return vector, warnings, nil
}

// badAnswer is the error of an answer that a Prometheus does not give.
func badAnswer(why string) error { return &promv1.Error{Type: promv1.ErrBadResponse, Msg: why} }

// explained is the error with what the server said, which the client does not read
// where the status is none of the API's: with a timeout of Prometheus' own, or a
// proxy before it.
func explained(err error) error {
	var answer *promv1.Error
	if !errors.As(err, &answer) || answer.Detail == "" {
		return err
	}
	said := struct {
		ErrorType promv1.ErrorType
		Error     string
	}{}
	if json.Unmarshal([]byte(answer.Detail), &said) == nil && said.ErrorType != "" {
		return &promv1.Error{Type: said.ErrorType, Msg: said.Error}
	}
	const most = 120 // bytes of a page that is for people
	return fmt.Errorf("%w: %q", err, strings.TrimSpace(answer.Detail[:min(most, len(answer.Detail))]))
}

// resultOf says what came of a query that ended with err.
func resultOf(err error) string {
	var answer *promv1.Error
	var timeout net.Error
	switch {
	case err == nil:
		return queryAnswered
	case errors.Is(err, errNoVector):
		return queryNoVector
	case errors.As(err, new(*http.MaxBytesError)), errors.Is(err, redirect.ErrRefused):
		return queryBadAnswer
	case errors.As(err, &answer):
		return resultOfAnswer(answer.Type)
	case errors.As(err, &timeout) && timeout.Timeout():
		return queryTimeout
	}
	return queryUnreachable
}

func resultOfAnswer(kind promv1.ErrorType) string {
	switch kind {
	case promv1.ErrTimeout, promv1.ErrCanceled:
		return queryTimeout
	case promv1.ErrBadData, promv1.ErrExec:
		return queryRefused
	}
	return queryBadAnswer
}

// bounded is a transport whose answers have at most maxAnswer bytes.
type bounded struct{ http.RoundTripper }

// CloseIdleConnections is what [http.Client.CloseIdleConnections] calls.
func (b bounded) CloseIdleConnections() {
	if inner, ok := b.RoundTripper.(api.CloseIdler); ok {
		inner.CloseIdleConnections()
	}
}

// RoundTrip implements [http.RoundTripper].
func (b bounded) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(request)
	if err == nil {
		response.Body = struct {
			io.Reader
			io.Closer
		}{http.MaxBytesReader(nil, response.Body, maxAnswer), response.Body}
	}
	return response, err
}
