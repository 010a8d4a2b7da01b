// Package admin lets operators talk to a running supervisor: HTTP over a unix socket that only its user can open, and over a loopback
// port if one is configured, where a token is needed. What is served besides the API (metrics, the page) is mounted behind the same guard.
package admin

import (
	"context"
	"time"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/config"
	"github.com/signalman-ci/signalman/internal/plugins"
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
	// Socket and Listen are where the API is: the unix socket, and a loopback address if there is one. The server fills them in.
	Socket string `json:"socket,omitempty"`
	Listen string `json:"listen,omitempty"`
}

// Supervisor is what is behind the API. Its methods are called concurrently.
type Supervisor interface {
	Status() Status
	// Alive tells whether the supervisor's loops go round; the error says in one line which one doesn't.
	Alive() error
	// Upgrade replaces the supervisor by the binary that is now in its place, which has to pass its own check first. It returns
	// that one's version when the replacement is certain and begins.
	Upgrade(ctx context.Context) (version string, err error)
	// Reconcile removes what is left of jobs that nobody runs any more, and tells what that was; dryRun changes nothing.
	Reconcile(ctx context.Context, dryRun bool) []reconcile.Leftover
	// Reload reads the configuration anew and takes it up; its error is in the report too.
	Reload() (Reload, error)
	// EffectiveConfig lists the settings that hold, without secrets.
	EffectiveConfig() []config.Setting
	// Drain makes all slots take no more jobs, Resume lets them.
	Drain() error
	Resume() error
	// Plugins tells of all workers that there are, also of those that can't be run.
	Plugins() []plugins.Plugin
	// StopJob stops a job as the hub would. Its error is agent.ErrNotHeld or agent.ErrOver for one that can't be stopped.
	StopJob(ctx context.Context, jobID string) error
}
