package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/signalman-ci/signalman/internal/reconcile"
)

const (
	// questionLimit bounds a question, upgradeLimit an upgrade, for which the new binary is checked first, reconcileLimit what
	// goes through the whole host, reloadLimit a reload, which tries the limits of jobs.
	questionLimit  = 10 * time.Second
	upgradeLimit   = 2 * time.Minute
	reconcileLimit = 10 * time.Minute
	reloadLimit    = 2 * time.Minute
)

// socketHost is the host of requests over the socket.
const socketHost = "signalman"

// ErrNoSupervisor says that nobody listens at a socket.
var ErrNoSupervisor = errors.New("no supervisor runs with this state folder")

// GetStatus asks the supervisor behind a socket for its status.
func GetStatus(ctx context.Context, socket string) (Status, error) {
	var st Status
	return st, call(ctx, questionLimit, socket, http.MethodGet, "/v1/status", &st)
}

// Upgrade lets the supervisor behind a socket replace itself. It returns the version of the new binary when that begins.
func Upgrade(ctx context.Context, socket string) (version string, err error) {
	var u upgrade
	err = call(ctx, upgradeLimit, socket, http.MethodPost, "/v1/upgrade", &u)
	return u.Version, err
}

// Reconcile lets the supervisor behind a socket remove what is left of jobs that nobody runs any more, or only tell it.
func Reconcile(ctx context.Context, socket string, dry bool) (left []reconcile.Leftover, err error) {
	path := "/v1/reconcile"
	if dry {
		path += "?" + dryRun
	}
	err = call(ctx, reconcileLimit, socket, http.MethodPost, path, &left)
	return left, err
}

// StopJob lets the supervisor behind a socket stop a job.
func StopJob(ctx context.Context, socket, jobID string) error {
	return call(ctx, stopLimit+questionLimit, socket, http.MethodPost, "/v1/jobs/"+url.PathEscape(jobID)+"/stop", &struct{}{})
}

func call(ctx context.Context, limit time.Duration, socket, method, path string, result any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+socketHost+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set(ownHeader, "1")
	resp, err := client.Do(req)
	if err != nil {
		if opErr, ok := errors.AsType[*net.OpError](err); ok && ctx.Err() == nil && opErr.Op == "dial" {
			return fmt.Errorf("%w (nothing answers at %s)", ErrNoSupervisor, socket)
		}
		return fmt.Errorf("cannot ask the supervisor: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		var p problem
		if json.NewDecoder(resp.Body).Decode(&p) != nil || p.Error == "" {
			return fmt.Errorf("cannot ask the supervisor: the answer is %s", resp.Status)
		}
		return errors.New(p.Error)
	}
	if err := json.NewDecoder(resp.Body).Decode(result); err != nil {
		return fmt.Errorf("cannot understand the supervisor's answer: %w", err)
	}
	return nil
}
