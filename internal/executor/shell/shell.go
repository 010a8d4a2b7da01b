// Package shell is the executor for jobs that run on the host itself, in a login shell.
//
// All that a job starts is a descendant of the worker, which is the reaper of its orphans, and carries a mark in its
// environment by which it is found after the worker's death, or by the session of the shell that it is in. Where the supervisor
// gives the job cgroups, all of it is in them from its birth.
package shell

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/signalman-ci/signalman/internal/cgroup"
	"github.com/signalman-ci/signalman/internal/process"
	"github.com/signalman-ci/signalman/internal/session"
	"github.com/signalman-ci/signalman/internal/version"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const (
	// markVariable, set to INSTANCE/JOB, is in the environment of every process of a job.
	markVariable = "SIGNALMAN_JOB"
	// shellStartLimit is how long a user's profile may take.
	shellStartLimit = time.Minute
	// leftoverGrace is what a background process gets between INT, TERM and KILL at a job's regular end.
	leftoverGrace = time.Second
)

// New makes the executor.
func New() protocol.Executor { return executor{} }

type executor struct{}

func (executor) Describe() protocol.Description {
	return protocol.Description{Name: "shell", Version: version.Version}
}

func (executor) Check(context.Context) []protocol.CheckResult {
	path, err := exec.LookPath("bash")
	if err != nil {
		return []protocol.CheckResult{{Name: "bash", Status: protocol.CheckFailed, Message: "bash is not in PATH: install it"}}
	}
	return []protocol.CheckResult{{Name: "bash", Status: protocol.CheckOK, Message: path}}
}

func (executor) Prepare(_ context.Context, job *protocol.Job, settings *protocol.Settings, _ protocol.SectionLog) (protocol.Environment, error) {
	if job.Compose != nil && len(job.Compose.Containers) > 0 {
		return nil, errors.New("the job has containers, and the executor shell runs none: map dockercompose to another executor in [executors]")
	}
	owner, home, err := place(settings)
	if err != nil {
		return nil, err
	}
	if settings.Home != "" {
		if err := owner.give(home); err != nil {
			return nil, err
		}
	}
	scripts := filepath.Join(settings.TempDir, ".scripts")
	if err := os.Mkdir(scripts, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("cannot make a folder for the job's commands: %w", err)
	}
	for _, dir := range []string{settings.TempDir, scripts} {
		if err := owner.give(dir); err != nil {
			return nil, err
		}
	}
	tree, err := process.NewTree()
	if err != nil {
		return nil, err
	}
	return &environment{
		jobID: job.ID, tree: tree, owner: owner, home: home, scripts: scripts, grace: settings.StopGrace,
		cgroups: settings.Cgroups, limits: settings.Limits, sessions: sessionsPath(settings),
		env: shellEnv(settings, owner, home, process.JobMark(settings.InstanceID, job.ID)),
	}, nil
}

func (executor) List(_ context.Context, instanceID string) ([]protocol.Leftover, error) {
	jobs, err := process.MarkedJobs(markVariable, instanceID)
	if err != nil {
		return nil, err
	}
	var out []protocol.Leftover
	for job, count := range jobs {
		out = append(out, protocol.Leftover{JobID: job, What: fmt.Sprintf("%d processes", count)})
	}
	return out, nil
}

func (executor) Cleanup(ctx context.Context, job *protocol.Job, settings *protocol.Settings) error {
	err := process.EndMarked(ctx, leftoverGrace, markVariable, process.JobMark(settings.InstanceID, job.ID))
	err = errors.Join(err, endSessions(ctx, sessionsPath(settings)), killAll(ctx, settings.Cgroups)) // what has dropped its environment
	if len(job.Files) == 0 {
		return err
	}
	owner, home, lookupErr := place(settings)
	if lookupErr != nil {
		return errors.Join(err, lookupErr)
	}
	var paths []string
	for _, f := range job.Files {
		paths = append(paths, resolve(home, f.Path))
	}
	return errors.Join(err, owner.remove(ctx, (*exec.Cmd).Start, append(paths, leftHalfWritten(job.ID, paths)...)))
}

// place tells whose a job is, and where its home.
func place(settings *protocol.Settings) (owner, string, error) {
	o, err := lookup(settings.User)
	if err != nil {
		return owner{}, "", err
	}
	if settings.Home != "" {
		return o, settings.Home, nil
	}
	return o, o.home, nil
}

// environment is the host as one job sees it.
type environment struct {
	jobID   string
	tree    *process.Tree
	owner   owner
	home    string
	scripts string
	env     []string
	grace   time.Duration
	cgroups []string
	limits  protocol.Limits
	// sessions is the file with those that the job's shells lead.
	sessions string
	// leader is the pid of the shell that is open, 0 before the first: Stop comes while OpenShell runs.
	leader atomic.Int64
	// injected are the files that go with the job.
	injected []string
}

func (e *environment) OpenShell(ctx context.Context) (protocol.Shell, error) {
	s, err := session.Open(ctx, session.Options{
		Dir: e.home, Env: e.env, Login: true, ScriptDir: e.scripts, Chown: e.owner.give,
		SysProcAttr: e.owner.attributes(), StartTimeout: shellStartLimit,
		Start: func(cmd *exec.Cmd) error {
			if err := e.start(cmd); err != nil {
				return err
			}
			e.leader.Store(int64(cmd.Process.Pid)) // known before it runs a user's profile
			// On a full disk the job goes on; only what drops its mark and outlives the worker would not be found.
			_ = noteSession(e.sessions, cmd.Process.Pid)
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	return explained{Shell: s, cgroups: e.cgroups, limits: e.limits}, nil
}

// start starts a process of the job.
func (e *environment) start(cmd *exec.Cmd) error {
	err := asFirstToGo(func() error { return cgroup.Start(e.cgroups, cmd, e.tree.Start) })
	if errors.Is(err, syscall.EAGAIN) && e.limits.Pids > 0 {
		return fmt.Errorf("%w: the job has as many processes and threads as it may, %d ([limits] pids)", err, e.limits.Pids)
	}
	return err
}

// Stop ends the shell's children before the shell, so that they end in good order and it doesn't go on to its next line.
func (e *environment) Stop(ctx context.Context) error { return e.end(ctx, e.grace) }

func (e *environment) Close(ctx context.Context) error {
	err := e.end(ctx, min(e.grace, leftoverGrace))
	if err == nil {
		err = forgetSessions(e.sessions)
	}
	err = errors.Join(err, e.owner.remove(ctx, e.tree.Start, e.injected))
	e.tree.Close()
	return errors.Join(err, os.RemoveAll(e.scripts))
}

func (e *environment) end(ctx context.Context, grace time.Duration) error {
	err := e.tree.End(ctx, grace, int(e.leader.Load()))
	return errors.Join(err, killAll(ctx, e.cgroups))
}

// killAll ends what is in the cgroups of a job after a gentler end.
func killAll(ctx context.Context, cgroups []string) error {
	if err := cgroup.Kill(ctx, cgroups); err != nil {
		return fmt.Errorf("cannot end all processes in the job's cgroups: %w", err)
	}
	return nil
}

// shellEnv is the environment that the job's shell starts with.
func shellEnv(s *protocol.Settings, o owner, home, mark string) []string {
	var env []string
	for _, v := range s.BaseEnv {
		env = append(env, v.Name+"="+v.Value)
	}
	return append(env, "HOME="+home, "USER="+o.name, "LOGNAME="+o.name, "TMPDIR="+s.TempDir, markVariable+"="+mark)
}
