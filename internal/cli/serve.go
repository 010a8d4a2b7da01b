package cli

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/config"
	"github.com/signalman-ci/signalman/internal/executor/settings"
	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/internal/plugins"
	"github.com/signalman-ci/signalman/internal/serve"
	"github.com/signalman-ci/signalman/internal/supervisor"
	"github.com/signalman-ci/signalman/internal/version"
)

// agentLogName is the file in the state folder for the agent's own log, if it has no other one.
const agentLogName = "agent.log"

// jumpPoint is where those who come by SSH are sent to.
const jumpPoint = "/tmp/ssh_jump_point"

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "take jobs over HTTPS from a hub that knows this host (hosted mode)",
		Description: "One job at a time. Callers need a token (JWT, HS256) that is signed with auth-token-secret. The pre-job hook is always sourced,\n" +
			"and fails the job if it fails.",
		Flags: config.ServeFlags(),
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			cfg, warnings, err := config.LoadServe(c)
			if err != nil {
				return err
			}
			if cfg.Log.File == "" { // there has to be one, for those who ask for it
				cfg.Log.File = filepath.Join(cfg.StateDir, agentLogName)
			}
			logger, closeLog, err := newLogger(cfg.Log, c.App.Writer)
			if err != nil {
				return err
			}
			defer closeLog()
			set, more, err := serveSettings(cfg, logger)
			if err != nil {
				return err
			}
			if cfg.Origin("auth-token-secret").Source == config.FromFlag {
				more = append(more, "--auth-token-secret on the command line is a secret that every user of this host can read; use SEMAPHORE_AGENT_AUTH_TOKEN_SECRET")
			}
			for _, w := range slices.Concat(warnings, more) {
				logger.Warn(w)
			}
			tel := startTelemetry(c.Context, cfg, logger)
			defer tel.close()
			tel.watch(&set)
			return runServe(c.Context, cfg, set)
		},
	}
}

// serveSettings are those of a supervisor without slots.
func serveSettings(cfg *config.Config, logger hclog.Logger) (_ supervisor.Settings, warnings []string, err error) {
	workers, err := finderOf(cfg)
	if err != nil {
		return supervisor.Settings{}, nil, err
	}
	if err := checkJobUsers(cfg.JobUsers); err != nil {
		return supervisor.Settings{}, nil, err
	}
	warnings = pluginWarnings(workers, cfg.Plugins)
	if len(cfg.JobUsers) > 0 {
		warnings = append(warnings, "job-user is set: nobody is let in by a job's SSH keys, which would be as the agent's user")
	}
	cfg.Hooks.SourcePreJob, cfg.Hooks.FailOnPreJobError = true, true
	cfg.Compose.ExposeKVM = cfg.Serve.ExposeKVM
	return supervisor.Settings{
		Config: cfg, StateDir: cfg.StateDir, Slots: 1, JobUsers: cfg.JobUsers, KeepJobs: cfg.Jobs.Keep, AdminListen: cfg.Admin.Listen,
		Floors: floors(cfg), Logger: logger, Agent: agent.Settings{LogPusher: logPusher(cfg), Job: jobSettings(cfg, workers)},
	}, warnings, nil
}

func runServe(ctx context.Context, cfg *config.Config, set supervisor.Settings) (err error) {
	caught, release := catchSignals()
	defer release()
	transport, err := hubOptions(cfg).Connection.Transport(nil)
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	cert, err := serve.Certificate(cfg.Serve.TLSCert, cfg.Serve.TLSKey, cfg.Serve.TLSSelfSigned, cfg.StateDir)
	if err != nil {
		return err
	}
	set.Manager = serviceManager{set.Logger}
	sup, err := supervisor.Open(set)
	if err != nil {
		return err
	}
	defer func() {
		if closed := sup.Close(); err == nil {
			err = closed
		}
	}()
	manager := serviceManager{set.Logger}
	defer manager.watchdog(ctx, func() { sup.Status() })()
	set.Logger.Info("supervisor started", "version", version.Version, "state-dir", set.StateDir)
	interrupt := func() {
		set.Logger.Info("interrupted; the job is stopped; a second signal leaves at once")
		manager.stopping(0)
		sup.Interrupt()
	}
	return withSignals(ctx, interrupt, func(ctx context.Context) error {
		release()
		if caught() {
			interrupt()
		}
		// They would end the process; there is nothing to be taken up.
		defer onSignal(syscall.SIGHUP, func() { set.Logger.Warn("serve takes up no other settings while it runs; start it again") })()
		defer onUpgradeSignal(func() { set.Logger.Warn("serve can't be upgraded in place; start it again") })()
		return sup.RunWork(ctx, func(place supervisor.Place) (supervisor.Work, error) {
			return serve.New(serve.Settings{
				Address: net.JoinHostPort(cfg.Serve.Host, strconv.Itoa(cfg.Serve.Port)), Secret: cfg.Serve.AuthTokenSecret.Reveal(),
				Certificate: cert, Version: version.Version, UserAgent: "signalman/" + version.Version, AgentLog: cfg.Log.File,
				JobsDir: place.JobsDir, Job: place.Job, Admit: place.Admit, LogPusher: set.Agent.LogPusher,
				HTTP: &http.Client{Transport: transport}, CallbackAttempts: cfg.Serve.CallbackRetryAttempts,
				SSH: sshOf(place, set.Agent.Job.Finder), Changed: place.Changed, Observer: set.Agent.Observer, Tracer: set.Agent.Tracer, Logger: set.Logger,
			}, place.Unfinished)
		})
	})
}

// sshOf is how those with a job's keys get in: as the agent's user, so only where jobs are that one's, too.
func sshOf(place supervisor.Place, workers plugins.Finder) serve.SSH {
	home := place.Job.Home
	if home == "" {
		home, _ = os.UserHomeDir() // "" with an error
	}
	if place.Job.User != "" {
		home = ""
	}
	return serve.SSH{Home: home, JumpPoint: jumpPoint, Container: func(folder *jobdir.Folder, main string) []string {
		return []string{filepath.Join(workers.Own, "worker-compose"), settings.JumpMode, place.Job.InstanceID, folder.ID(), main, folder.JumpPath()}
	}}
}
