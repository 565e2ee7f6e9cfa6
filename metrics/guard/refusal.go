// SPDX-License-Identifier: Apache-2.0

package guard

import "github.com/prometheus/client_golang/prometheus"

// reason is why something was refused or ended early, a value of the label reason.
type reason string

const (
	reasonConnections       reason = "connections"        // all places are taken
	reasonSourceConnections reason = "source_connections" // one source has its maximum
	reasonHTTP2             reason = "http2"              // too many connections, or a fault of the protocol
	reasonAnswers           reason = "answers"            // too many large answers are being read
	reasonSourceAnswers     reason = "source_answers"
	reasonHeaders           reason = "headers" // too large, or malformed
	reasonBody              reason = "body"
	reasonTimeout           reason = "timeout"     // a handshake or a request did not come in time
	reasonSlowReader        reason = "slow_reader" // an answer was not taken in time
	reasonFlood             reason = "flood"       // too much input
	reasonLogin             reason = "login"       // too many failed logins
	reasonHost              reason = "host"        // a name that is not this server's
)

func reasons() []reason {
	return []reason{
		reasonConnections, reasonSourceConnections, reasonHTTP2, reasonAnswers, reasonSourceAnswers, reasonHeaders,
		reasonBody, reasonTimeout, reasonSlowReader, reasonFlood, reasonLogin, reasonHost,
	}
}

// newRefused returns the counter, with each reason at 0.
func newRefused() *prometheus.CounterVec {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "podmeter_http_refused_total",
		Help: "Connections and requests that were refused or ended early, by reason.",
	}, []string{"reason"})
	for _, r := range reasons() {
		refused.WithLabelValues(string(r))
	}
	return refused
}
