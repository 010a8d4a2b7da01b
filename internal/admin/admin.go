// Package admin lets an operator's commands talk to a running supervisor: HTTP over a unix socket that only its user can open.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/signalman-ci/signalman/internal/agent"
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
	Interrupted bool           `json:"interrupted"`
	Slots       []agent.Status `json:"slots"`
	// Goroutines and OpenFiles (file descriptors; 0 where they can't be counted) stay level over days, or something leaks.
	Goroutines int `json:"goroutines"`
	OpenFiles  int `json:"open_files,omitempty"`
}

// Server answers on the socket until Close.
type Server struct {
	http *http.Server
	done chan struct{}
}

// Listen opens the socket. The caller owns the state folder: a socket that is there is a dead supervisor's.
func Listen(path string, status func() Status) (*Server, error) {
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
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(status()) // the caller has gone
	})
	s := &Server{http: &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(l) // ends with Close
	}()
	return s, nil
}

// Close closes the socket and removes it.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	return err
}

// GetStatus asks the supervisor behind a socket for its status.
func GetStatus(ctx context.Context, socket string) (Status, error) {
	client := &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			},
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://signalman/v1/status", nil)
	if err != nil {
		return Status{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		var opErr *net.OpError
		if ctx.Err() == nil && errors.As(err, &opErr) && opErr.Op == "dial" {
			return Status{}, fmt.Errorf("no supervisor runs with this state folder (nothing answers at %s)", socket)
		}
		return Status{}, fmt.Errorf("cannot ask the supervisor: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Status{}, fmt.Errorf("cannot ask the supervisor: the answer is %s", resp.Status)
	}
	var st Status
	if err := json.NewDecoder(resp.Body).Decode(&st); err != nil {
		return Status{}, fmt.Errorf("cannot understand the supervisor's answer: %w", err)
	}
	return st, nil
}
