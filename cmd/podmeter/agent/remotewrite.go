// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/podmeter/podmeter/internal/httpfile"
	"github.com/podmeter/podmeter/internal/secret"
	"github.com/podmeter/podmeter/metrics/remotewrite"
	"github.com/prometheus/common/model"
)

// openRemoteWrite prepares the writing to receivers, if there are any.
func (a *Agent) openRemoteWrite(context.Context) error {
	if len(a.config.RemoteWriteURLs) == 0 {
		return nil
	}
	client, err := remoteWriteClient(a.config.RemoteWriteHTTPConfigFile)
	if err != nil {
		return Usage(about("remote-write-http-config-file", err))
	}
	labels, err := a.config.remoteWriteLabels()
	if err != nil {
		return Usage(err)
	}
	a.remoteWriter, err = remotewrite.New(remotewrite.Options{
		URLs: a.config.RemoteWriteURLs, Client: client, Gatherer: a.exporter.Registry(), Labels: labels,
		NativeHistograms: a.config.RemoteWriteNativeHistograms, Interval: a.config.RemoteWriteInterval,
		Spool: a.config.RemoteWriteSpool, SpoolLimit: int64(a.config.RemoteWriteSpoolLimit),
		UserAgent: "podmeter/" + a.options.Version, Logger: a.log,
	})
	if err != nil {
		return Usage(about("remote-write-spool", err)) // URLs are checked
	}
	if err := a.exporter.Registry().Register(a.remoteWriter); err != nil {
		return fmt.Errorf("register metrics of remote write: %w", err)
	}
	return nil
}

// remoteWriteClient returns a client of what a file says, nil without one.
func remoteWriteClient(path string) (*http.Client, error) {
	if path == "" {
		return nil, nil
	}
	return httpfile.Client(path, "remote write")
}

// checkRemoteWriteURLs keeps what it refuses to itself where a password may be in it.
func (c Config) checkRemoteWriteURLs() (faults []error) {
	const want = "a URL is expected, such as https://prometheus.example/api/v1/write"
	for _, address := range c.RemoteWriteURLs {
		u, err := url.Parse(address)
		switch {
		case err != nil:
			faults = append(faults, NewFault("remote-write-url", "cannot be parsed", want))
		case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
			faults = append(faults, NewFault("remote-write-url", strconv.Quote(secret.URL(u)), want))
		}
	}
	return faults
}

// remoteWriteLabels are the labels that a scrape configuration would give, and those that
// the user adds.
func (c Config) remoteWriteLabels() (map[string]string, error) {
	labels := map[string]string{"job": "podmeter", "instance": c.NodeName, "node": c.NodeName}
	var faults []error
	for _, pair := range c.RemoteWriteLabels {
		name, value, found := strings.Cut(pair, "=")
		if !found || !model.LegacyValidation.IsValidLabelName(name) || strings.HasPrefix(name, "__") || !model.LabelValue(value).IsValid() {
			faults = append(faults, NewFault("remote-write-labels", pair, "name=value is expected, such as cluster=prod"))
			continue
		}
		labels[name] = value
	}
	return labels, errors.Join(faults...)
}

// writeRemotely runs until ctx is done, and ends all series then.
func (a *Agent) writeRemotely(ctx context.Context) error {
	if a.remoteWriter == nil {
		return nil
	}
	return a.remoteWriter.Run(ctx)
}
