// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/podmeter/podmeter/cmd/podmeter/agent/page"
)

// serveSocket serves the status, and all that the network gets, to this host.
func (a *Agent) serveSocket(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("/", a.server.Handler())
	mux.HandleFunc("GET "+StatusPath, a.serveStatus)
	mux.HandleFunc("POST "+DrainPath, a.serveDrain)
	mux.Handle("GET "+page.StatePath, a.page)
	return a.server.ServePlain(ctx, a.socket, mux)
}

func (a *Agent) serveStatus(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(a.Status()); err != nil {
		a.log.Debug("answer status", "error", err)
	}
}

// reloadOnHangup reads the files again at SIGHUP. What is wrong with one is
// logged, and what was read before stays.
func (a *Agent) reloadOnHangup(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.hangup:
		}
		errs := []error{a.identity.reload()}
		if a.places != nil {
			errs = append(errs, a.places.Reload())
		}
		if err := errors.Join(errs...); err != nil {
			a.log.Error("reload", "error", err)
		} else {
			a.log.Info("reloaded all files")
		}
	}
}
