package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"

	"github.com/signalman-ci/signalman/internal/config"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/pluginhost"
	"github.com/signalman-ci/signalman/internal/plugins"
	"github.com/signalman-ci/signalman/internal/supervisor"
	"github.com/signalman-ci/signalman/shared/protocol"
	"github.com/signalman-ci/signalman/shared/protocol/conformance"
)

const (
	// describeLimit bounds the start of a worker and what it says of itself.
	describeLimit = 10 * time.Second
	// lookLimit bounds a worker's look at the host.
	lookLimit = 30 * time.Second
)

// errCheckFailed makes the exit code 1 without a message: what failed has been printed.
var errCheckFailed = errors.New("the executor has not passed")

func pluginsCommand() *cli.Command {
	return &cli.Command{
		Name:  "plugins",
		Usage: "list, pin and check executors",
		Subcommands: []*cli.Command{
			{
				Name:   "list",
				Usage:  "list the executors that there are, and what is wrong with those that can't be used",
				Flags:  append(config.PluginFlags(), &cli.BoolFlag{Name: "json", Usage: "print JSON"}),
				Action: listPlugins,
			},
			{
				Name:      "pin",
				Usage:     "write what plugins are now to the plugins.lock of their folder",
				ArgsUsage: "NAME...",
				Flags:     config.PluginFlags(),
				Action:    pinPlugins,
			},
			{
				Name:      "check",
				Usage:     "run jobs with an executor and see whether it does what a supervisor relies on",
				ArgsUsage: "NAME|PATH",
				Flags: append(config.PluginFlags(), &cli.BoolFlag{
					Name: "quick", Usage: "run no jobs: only start it, and let it tell what this host lacks",
				}),
				Action: checkPlugin,
			},
		},
		Action: func(c *cli.Context) error {
			if name := c.Args().First(); name != "" {
				return fmt.Errorf("plugins has no command %q; see: supervisor plugins --help", name)
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}

// finderOf finds the workers of a configuration.
func finderOf(cfg *config.Config) (plugins.Finder, error) {
	f, err := finder(cfg.PluginDirs)
	if err != nil {
		return f, err
	}
	f.Verify, f.Env = plugins.Verify(cfg.Verify), map[string][]string{"k8s": {kubernetesSettings(cfg).Env()}}
	for _, p := range cfg.Plugins {
		f.Env[p.Name] = job.PluginEnv(os.Environ(), p.PassEnv)
	}
	return f, nil
}

// pluginWarnings tells of settings for what isn't there. It may be dropped in later.
func pluginWarnings(workers plugins.Finder, tables []config.Plugin) (warnings []string) {
	for _, p := range tables {
		if _, err := workers.Find(p.Name); err != nil {
			warnings = append(warnings, fmt.Sprintf("there are settings for a plugin that can't be used, [plugins.%s]: %v", p.Name, err))
		}
	}
	return warnings
}

func pluginExtra(p config.Plugin) map[string]string {
	extra := map[string]string{}
	for key, v := range p.Settings {
		extra[key] = v.Reveal()
	}
	return extra
}

func pluginLimits(tables []config.Plugin) map[string]job.Limits {
	limits := map[string]job.Limits{}
	for _, p := range tables {
		limits[p.Name] = limitsOf(p.Limits)
	}
	return limits
}

// loadPlugins is what the commands about plugins begin with.
func loadPlugins(c *cli.Context) (*config.Config, plugins.Finder, error) {
	cfg, warnings, err := config.LoadWithoutHub(c)
	if err != nil {
		return nil, plugins.Finder{}, err
	}
	for _, w := range warnings {
		fmt.Fprintln(c.App.ErrWriter, w)
	}
	f, err := finderOf(cfg)
	return cfg, f, err
}

// listedPlugin is a plugin with what its worker says of itself.
type listedPlugin struct {
	plugins.Plugin
	Version string `json:"version,omitempty"`
}

func listPlugins(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	_, workers, err := loadPlugins(c)
	if err != nil {
		return err
	}
	all := []listedPlugin{}
	err = withRunDir(func(dir string) error {
		for _, p := range workers.List() {
			listed := listedPlugin{Plugin: p}
			if p.Problem == "" {
				if listed.Version, err = versionOf(c.Context, workers, p.Name, dir); err != nil {
					listed.Problem = err.Error()
				}
			}
			all = append(all, listed)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return writeJSON(c.App.Writer, all)
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tVERSION\tPIN\tSHA256\tFILE\tPROBLEM")
	for _, p := range all {
		pin := cmp.Or(string(p.Pin), "-")
		if p.BuiltIn {
			pin = "built in"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.12s\t%s\t%s\n", p.Name, cmp.Or(p.Version, "-"), pin, cmp.Or(p.SHA256, "-"), p.Path, p.Problem)
	}
	return w.Flush()
}

// withRunDir runs f with a folder for sockets, whose path is short.
func withRunDir(f func(dir string) error) (err error) {
	dir, err := os.MkdirTemp(supervisor.TempDir(), "signalman-")
	if err != nil {
		return fmt.Errorf("cannot make a folder for sockets: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return f(dir)
}

func versionOf(ctx context.Context, workers plugins.Finder, executor, runDir string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, describeLimit)
	defer cancel()
	worker, err := workers.Start(ctx, executor, pluginhost.Launch{
		Env: job.WorkerEnv(os.Environ()), StderrPath: filepath.Join(runDir, "worker.log"), RunDir: runDir, Logger: hclog.NewNullLogger(),
	})
	if err != nil {
		return "", err
	}
	defer worker.Kill()
	d, err := worker.Describe(ctx)
	if err == nil && d.Name != executor {
		err = fmt.Errorf("it says that its name is %q", d.Name)
	}
	return d.Version, err
}

func pinPlugins(c *cli.Context) error {
	if !c.Args().Present() {
		return errors.New("which plugins? Name them: supervisor plugins pin NAME")
	}
	_, workers, err := loadPlugins(c)
	if err != nil {
		return err
	}
	for _, name := range c.Args().Slice() {
		path, sum, err := workers.Pin(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.App.Writer, "%s  %s\n", sum, path)
	}
	return nil
}

func checkPlugin(c *cli.Context) error {
	if c.NArg() != 1 {
		return errors.New("which one? Name it, or the path of a worker-NAME, after the flags: supervisor plugins check NAME")
	}
	cfg, workers, err := loadPlugins(c)
	if err != nil {
		return err
	}
	ctx, release := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM) // what was started is ended, and folders go
	defer release()
	c.Context = ctx
	workers.Verify = plugins.Off // one looks at a plugin before one pins it
	p, err := pluginToCheck(&workers, c.Args().First())
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s, SHA-256 %s", p.Path, p.SHA256)
	if p.Pin != "" {
		fmt.Fprintf(c.App.Writer, ", %s", p.Pin)
	}
	fmt.Fprintln(c.App.Writer)
	failed, err := lookAtHost(c, workers, p.Name)
	if err != nil || c.Bool("quick") || failed {
		return checkResult(failed, err)
	}
	return checkResult(runKit(c, conformance.Worker{
		Path: p.Path, Env: append(job.WorkerEnv(os.Environ()), workers.Env[p.Name]...), Extra: extraOf(cfg)[p.Name],
	}), nil)
}

func checkResult(failed bool, err error) error {
	if err == nil && failed {
		return errCheckFailed
	}
	return err
}

// pluginToCheck finds a worker by name or by path; then its folder is the only one.
func pluginToCheck(workers *plugins.Finder, which string) (plugins.Plugin, error) {
	name := which
	if strings.ContainsRune(which, filepath.Separator) {
		path, err := filepath.Abs(which)
		if err != nil {
			return plugins.Plugin{}, err
		}
		name = plugins.Executor(path)
		if name == "" {
			return plugins.Plugin{}, fmt.Errorf("%s: a worker's file is named worker-NAME", which)
		}
		if plugins.BuiltIn(name) {
			workers.Own = filepath.Dir(path)
		}
		workers.Dirs = []string{filepath.Dir(path)}
	}
	path, err := workers.Find(name)
	if err != nil {
		return plugins.Plugin{}, err
	}
	for _, p := range workers.List() {
		if p.Path == path {
			return p, nil
		}
	}
	return plugins.Plugin{}, fmt.Errorf("%s is gone", path)
}

// lookAtHost starts a worker, and prints who it is and what it says of this host.
func lookAtHost(c *cli.Context, workers plugins.Finder, executor string) (failed bool, err error) {
	ctx, cancel := context.WithTimeout(c.Context, lookLimit)
	defer cancel()
	var d protocol.Description
	var results []protocol.CheckResult
	err = withRunDir(func(dir string) error {
		worker, err := workers.Start(ctx, executor, pluginhost.Launch{
			Env: job.WorkerEnv(os.Environ()), StderrPath: filepath.Join(dir, "worker.log"), RunDir: dir, Logger: hclog.NewNullLogger(),
		})
		if err != nil {
			return err
		}
		defer worker.Kill()
		if d, err = worker.Describe(ctx); err != nil {
			return err
		}
		results, err = worker.Check(ctx)
		return err
	})
	if err != nil {
		return false, err
	}
	fmt.Fprintf(c.App.Writer, "executor %s, version %s\n", d.Name, cmp.Or(d.Version, "(it tells none)"))
	words := map[protocol.CheckStatus]string{protocol.CheckOK: "ok", protocol.CheckWarning: "warning", protocol.CheckFailed: "FAILED"}
	for _, r := range results {
		failed = failed || r.Status == protocol.CheckFailed
		fmt.Fprintf(c.App.Writer, "%-8s this host: %s: %s\n", words[r.Status], r.Name, r.Message)
	}
	if d.Name != executor {
		failed = true
		fmt.Fprintf(c.App.Writer, "FAILED   its file says that its name is %q\n", executor)
	}
	return failed, nil
}

// runKit runs the conformance kit and prints how each case went.
func runKit(c *cli.Context, w conformance.Worker) (failed bool) {
	passed := 0
	cases := conformance.Cases()
	for _, one := range cases {
		r := one.Check(c.Context, w)
		if r.Err == nil {
			passed++
			fmt.Fprintf(c.App.Writer, "ok       %s (%.1f s)\n", one.Name, r.Duration.Seconds())
			continue
		}
		fmt.Fprintf(c.App.Writer, "FAILED   %s (%.1f s)\n         expected: %s\n         %s\n", one.Name, r.Duration.Seconds(), one.Expects,
			strings.ReplaceAll(r.Err.Error(), "\n", "\n         "))
		if c.Err() != nil {
			break
		}
	}
	fmt.Fprintf(c.App.Writer, "%d of %d passed\n", passed, len(cases))
	return passed != len(cases)
}
