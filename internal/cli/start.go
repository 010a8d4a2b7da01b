package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"
	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/signalman-ci/signalman/internal/admission"
	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/artifact"
	"github.com/signalman-ci/signalman/internal/config"
	"github.com/signalman-ci/signalman/internal/executor/settings"
	"github.com/signalman-ci/signalman/internal/filewatch"
	"github.com/signalman-ci/signalman/internal/hostuser"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/plugins"
	"github.com/signalman-ci/signalman/internal/supervisor"
	"github.com/signalman-ci/signalman/internal/version"
	"github.com/signalman-ci/signalman/shared/protocol"
)

func startCommand() *cli.Command {
	return &cli.Command{
		Name:  "start",
		Usage: "register with the hub and run its jobs",
		Flags: append(config.Flags(), &cli.BoolFlag{
			Name: "check", Usage: "only check the settings and that the workers answer, then exit; an upgrade in place asks the new version so",
		}),
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			if c.Bool("check") { // its listener may be killed; what the check makes goes nevertheless
				signal.Ignore(syscall.SIGPIPE)
			} else { // one that comes before the supervisor can be told doesn't end it; the file is read, or watched, in any case
				defer onSignal(syscall.SIGHUP, func() {})()
			}
			watch, err := watchConfigFile(c)
			if err != nil {
				return err
			}
			cfg, warnings, err := config.Load(c)
			if err != nil {
				return err
			}
			logger, closeLog, err := newLogger(cfg.Log, c.App.Writer)
			if err != nil {
				return err
			}
			defer closeLog()
			settings, more, err := settingsOf(cfg, logger)
			if err != nil {
				return err
			}
			for _, w := range slices.Concat(warnings, more, exposures(cfg)) {
				logger.Warn(w)
			}
			if len(cfg.JobUsers) == 0 { // which a reload doesn't repeat
				logger.Warn("jobs run with the supervisor's own rights and can read its tokens and each other's files; set job-user to part them")
			}
			if c.Bool("check") {
				return checkWorkers(c.Context, settings.Agent.Job, c.App.Writer)
			}
			tel := startTelemetry(c.Context, cfg, logger)
			defer tel.close()
			tel.watch(&settings)
			settings.Watch = watch
			settings.Load = func() (supervisor.Settings, []string, error) {
				cfg, warnings, err := config.Load(c)
				if err != nil {
					return supervisor.Settings{}, nil, err
				}
				settings, more, err := settingsOf(cfg, logger)
				tel.watch(&settings)
				return settings, append(warnings, more...), err
			}
			return runSupervisor(c.Context, settings, tel)
		},
	}
}

// watchConfigFile begins to watch the config file, before it is read for the first time; nil: there is none.
func watchConfigFile(c *cli.Context) (*filewatch.Watcher, error) {
	path := config.Path(c)
	if path == "" {
		return nil, nil
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("cannot tell where the config file is: %w", err)
	}
	return filewatch.New(filewatch.Options{Files: []string{path}}), nil
}

// checkJobUsers tells of a mistyped user at the start rather than in the first job.
func checkJobUsers(names []string) error {
	for _, name := range names {
		if _, err := hostuser.Lookup(name); err != nil {
			return fmt.Errorf("job-user: there is no user %q on this host", name)
		}
	}
	return nil
}

// runSupervisor works until all slots have left, or a second signal comes. After an upgrade this process is another program.
func runSupervisor(ctx context.Context, settings supervisor.Settings, tel *telemetry) error {
	next, err := findReplacement()
	if err != nil {
		return err
	}
	settings.CheckUpgrade = next.check
	settings.Manager = serviceManager{settings.Logger}
	for interrupted := false; ; {
		interrupted, err = runUntilHandedOver(ctx, settings, interrupted)
		if !errors.Is(err, supervisor.ErrHandedOver) {
			return err
		}
		if interrupted { // then there is nothing to upgrade for
			continue
		}
		tel.flush()
		settings.Logger.Error("cannot run the new version; going on with this one", "error", next.exec())
		if again, _, err := settings.Load(); err == nil { // what was taken up since the start
			again.CheckUpgrade, again.Manager, again.Load, again.Watch = settings.CheckUpgrade, settings.Manager, settings.Load, settings.Watch
			settings = again
		}
	}
}

// runUntilHandedOver runs a supervisor to its end and tells whether it was interrupted, as it may have been from the first. If it has
// handed over, signals that end it are ignored from then on, as the next program will do until it is ready for them.
func runUntilHandedOver(ctx context.Context, settings supervisor.Settings, interrupted bool) (_ bool, err error) {
	caught, release := catchSignals() // a signal of the time until the supervisor can be told is not lost
	defer release()
	sup, err := supervisor.Open(settings)
	if err != nil {
		return interrupted, err
	}
	manager := serviceManager{settings.Logger}
	defer func() {
		closed := sup.Close()
		if !errors.Is(err, supervisor.ErrHandedOver) {
			err = errors.Join(err, closed)
		} else if closed != nil {
			settings.Logger.Error("cannot give up the state folder", "error", closed)
		}
	}()
	settings.Logger.Info("supervisor started", "version", version.Version, "slots", settings.Slots, "state-dir", settings.StateDir)
	interrupt := func() {
		settings.Logger.Info("interrupted; the hub is told, and running jobs have the grace period; a second signal leaves at once")
		manager.stopping(sup.Current().Agent.Registration.InterruptionGracePeriod)
		sup.Interrupt()
	}
	defer manager.watchdog(ctx, func() { sup.Status() })()
	err = withSignals(ctx, interrupt, func(ctx context.Context) error {
		release()
		if interrupted || caught() {
			interrupt()
		}
		checking, cancel := context.WithCancel(ctx)
		defer onUpgradeSignal(func() {
			if _, err := sup.Upgrade(checking); err != nil {
				settings.Logger.Error("the upgrade was refused; nothing has changed", "reason", err)
			}
		})()
		defer cancel()
		defer onSignal(syscall.SIGHUP, func() { _, _ = sup.Reload() })() // which logs how it went
		err := sup.Run(ctx)
		if errors.Is(err, supervisor.ErrHandedOver) {
			ignoreSignals()
			manager.Reloading()
		}
		return err
	})
	return sup.Interrupted(), err
}

// newLogger makes the agent's own log: to out, and to a file that is rotated if one is set.
func newLogger(c config.Log, out io.Writer) (_ hclog.Logger, closeLog func(), err error) {
	closeLog = func() {}
	if c.File != "" {
		if err := canLogTo(c.File); err != nil {
			return nil, nil, fmt.Errorf("SEMAPHORE_AGENT_LOG_FILE_PATH: cannot log to %s: %w", c.File, err)
		}
		file := &lumberjack.Logger{Filename: c.File, MaxSize: 100, MaxBackups: 5}
		out = io.MultiWriter(out, file)
		closeLog = func() { _ = file.Close() }
	}
	return hclog.New(&hclog.LoggerOptions{Name: "signalman", Level: hclog.LevelFromString(c.Level), Output: out}), closeLog, nil
}

// canLogTo tries what the log would fail at later, and unseen.
func canLogTo(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// settingsOf turns what the user sets into what the parts are given. The warnings are for the operator.
func settingsOf(cfg *config.Config, logger hclog.Logger) (_ supervisor.Settings, warnings []string, err error) {
	workers, err := finderOf(cfg)
	if err != nil {
		return supervisor.Settings{}, nil, err
	}
	warnings = append(warnings, pluginWarnings(workers, cfg.Plugins)...)
	if _, err := workers.Find(cfg.Executors.Shell); err != nil {
		warnings = append(warnings, fmt.Sprintf("jobs without containers will fail: %v", err))
	}
	if err := checkJobUsers(cfg.JobUsers); err != nil {
		return supervisor.Settings{}, nil, err
	}
	client, err := hub.New(hubOptions(cfg))
	if err != nil {
		return supervisor.Settings{}, nil, err
	}
	hostname, err := os.Hostname()
	if err != nil {
		return supervisor.Settings{}, nil, fmt.Errorf("cannot tell the host's name: %w", err)
	}
	return supervisor.Settings{
		Config: cfg, StateDir: cfg.StateDir, Slots: cfg.Concurrency, JobUsers: cfg.JobUsers,
		ShutdownHook: cfg.Hooks.Shutdown, KeepJobs: cfg.Jobs.Keep, AdminListen: cfg.Admin.Listen, Logger: logger,
		Floors: floors(cfg),
		Agent: agent.Settings{
			Hub: client, Endpoint: cfg.Endpoint, Token: tokenSource(cfg),
			RegisterAgain: cfg.OnUnknown == config.OnUnknownRegister, FlushTimeout: cfg.Log.FlushTimeout,
			LogPusher: logPusher(cfg),
			Registration: hub.RegisterRequest{
				Name: cfg.Name, Version: version.Version, PID: os.Getpid(), OS: runtime.GOOS, Arch: runtime.GOARCH, Hostname: hostname,
				SingleJob: cfg.DisconnectAfterJob, JobID: cfg.JobID,
				IdleTimeout: cfg.DisconnectAfterIdle, InterruptionGracePeriod: cfg.InterruptionGrace,
			},
			Job: jobSettings(cfg, workers),
		},
	}, warnings, nil
}

// logPusher pushes jobs' logs to their artifacts.
func logPusher(cfg *config.Config) artifact.Pusher {
	return artifact.Pusher{When: artifact.When(cfg.UploadJobLogs), CompressAbove: int64(cfg.Log.CompressionSize), Environ: os.Environ()}
}

func floors(cfg *config.Config) admission.Floors {
	return admission.Floors{
		Disk: uint64(cfg.Admission.MinDisk), Memory: uint64(cfg.Admission.MinMemory), Inodes: uint64(cfg.Admission.MinInodes),
	}
}

// jobSettings are those of all slots' jobs.
func jobSettings(cfg *config.Config, workers plugins.Finder) job.Settings {
	var env []protocol.EnvVar
	for _, v := range cfg.EnvVars {
		env = append(env, protocol.EnvVar{Name: v.Name, Value: v.Value.Reveal()})
	}
	return job.Settings{
		Finder:       workers,
		Executors:    map[string]string{"shell": cfg.Executors.Shell, "dockercompose": cfg.Executors.DockerCompose},
		JobExecutors: cfg.JobExecutors,
		WorkerEnv:    job.WorkerEnv(os.Environ()), BaseEnv: job.BaseEnv(os.Environ(), cfg.PassEnv), Env: env,
		Secrets: job.Secrets(cfg.Secrets), Extra: extraOf(cfg), Plugins: pluginLimits(cfg.Plugins),
		PreHook: protocol.Hook{
			Path: cfg.Hooks.PreJob, Source: cfg.Hooks.SourcePreJob, FailJob: cfg.Hooks.FailOnPreJobError,
		},
		PostHook:    protocol.Hook{Path: cfg.Hooks.PostJob},
		LogMaxBytes: int64(cfg.Log.MaxDisk), StopGrace: cfg.Jobs.StopGrace, Timeout: cfg.Limits.Timeout,
		Limits: limitsOf(cfg.Limits).Limits,
	}
}

// extraOf are the settings of executors, by their names.
func extraOf(cfg *config.Config) map[string]map[string]string {
	extra := map[string]map[string]string{"compose": composeSettings(cfg).Extra(), "k8s": kubernetesSettings(cfg).Extra()}
	for _, p := range cfg.Plugins {
		extra[p.Name] = pluginExtra(p)
	}
	return extra
}

func limitsOf(l config.Limits) job.Limits {
	return job.Limits{
		Limits:  protocol.Limits{Memory: int64(l.Memory), MilliCPUs: int64(l.MilliCPUs), Pids: int64(l.Pids)},
		Timeout: l.Timeout,
	}
}

// kubernetesSettings are those of jobs in pods.
func kubernetesSettings(cfg *config.Config) settings.Kubernetes {
	k := cfg.Kubernetes
	return settings.Kubernetes{
		Unused:     !slices.Contains(append([]string{cfg.Executors.Shell, cfg.Executors.DockerCompose}, cfg.JobExecutors...), "k8s"),
		Kubeconfig: k.Kubeconfig, Context: k.Context, Namespace: k.Namespace,
		PodSpec: k.PodSpec, AllowedImages: k.AllowedImages, DefaultImage: k.DefaultImage, Labels: k.Labels, PodStartTimeout: k.PodStartTimeout,
	}
}

// composeSettings are those of jobs in containers.
func composeSettings(cfg *config.Config) settings.Compose {
	c := settings.Compose{
		PullPolicy: cfg.Compose.PullPolicy, AllowedImages: cfg.Compose.AllowedImages,
		MountDockerSocket: cfg.Compose.MountDockerSocket, ExposeKVM: cfg.Compose.ExposeKVM, FailOnMissingFiles: cfg.FailOnMissingFiles,
	}
	for _, f := range cfg.Files {
		c.Files = append(c.Files, settings.File(f))
	}
	return c
}
