// Package admin lets an operator's commands talk to a running supervisor: HTTP over a unix socket that only its user can open.
package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/reconcile"
)

// SocketName is the socket's name in the run folder.
const SocketName = "admin.sock"

// Status is what a supervisor tells of itself.
type Status struct {
	Version    string    `json:"version"`
	PID        int       `json:"pid"`
	StateDir   string    `json:"state_dir"`
	InstanceID string    `json:"instance_id"`
	Since      time.Time `json:"since"`
	// Interrupted is set once the supervisor is on its way out.
	Interrupted bool `json:"interrupted"`
	// Drained is set while an operator wants no jobs taken.
	Drained bool           `json:"drained"`
	Slots   []agent.Status `json:"slots"`
	// LastReload is the last one that had something to say.
	LastReload *Reload `json:"last_reload,omitempty"`
	// Goroutines and OpenFiles (file descriptors; 0 where they can't be counted) stay level over days, or something leaks.
	Goroutines int `json:"goroutines"`
	OpenFiles  int `json:"open_files,omitempty"`
}

// Server answers on the socket until Close.
type Server struct {
	http *http.Server
	done chan struct{}
}

// Supervisor is what is behind the socket. Its methods are called concurrently.
type Supervisor interface {
	Status() Status
	// Upgrade replaces the supervisor by the binary that is now in its place, which has to pass its own check first. It returns
	// that one's version when the replacement is certain and begins.
	Upgrade(ctx context.Context) (version string, err error)
	// Reconcile removes what is left of jobs that nobody runs any more, and tells what that was; dryRun changes nothing.
	Reconcile(ctx context.Context, dryRun bool) []reconcile.Leftover
	// Reload reads the configuration anew and takes it up; its error is in the report too.
	Reload() (Reload, error)
	// Drain makes all slots take no more jobs, Resume lets them.
	Drain() error
	Resume() error
	// Metrics answers with figures in Prometheus' format; nil: there are none.
	Metrics() http.Handler
}

// Listen opens the socket. The caller owns the state folder: a socket that is there is a dead supervisor's.
func Listen(path string, sup Supervisor) (*Server, error) {
	_ = os.Remove(path)
	l, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the admin socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, sup.Status())
	})
	mux.HandleFunc("POST /v1/upgrade", func(w http.ResponseWriter, r *http.Request) {
		version, err := sup.Upgrade(r.Context())
		if err != nil {
			answer(w, http.StatusConflict, problem{Error: err.Error()})
			return
		}
		answer(w, http.StatusAccepted, upgrade{Version: version})
	})
	mux.HandleFunc("POST /v1/reconcile", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, sup.Reconcile(r.Context(), r.URL.Query().Has(dryRun)))
	})
	mux.HandleFunc("POST /v1/reload", reload(sup))
	mux.HandleFunc("POST /v1/drain", change(sup, func() error { return sup.Drain() }))
	mux.HandleFunc("POST /v1/resume", change(sup, func() error { return sup.Resume() }))
	if metrics := sup.Metrics(); metrics != nil {
		mux.Handle("GET /metrics", metrics)
	}
	s := &Server{http: &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(l) // ends with Close
	}()
	return s, nil
}

// closeLimit is how long answers that are under way may take when the socket closes.
const closeLimit = 2 * time.Second

// Close closes the socket and removes it, after the answers that are under way.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	<-s.done
	return err
}

// dryRun is a parameter of a reconciliation.
const dryRun = "dry-run"

// problem and upgrade are answers.
type problem struct {
	Error string `json:"error"`
}

type upgrade struct {
	Version string `json:"version"`
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the caller has gone
}
