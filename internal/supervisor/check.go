package supervisor

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/pluginhost"
	"github.com/signalman-ci/signalman/internal/plugins"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// checkLimit bounds an executor's look at the host.
const checkLimit = 20 * time.Second

// Lack is something that an executor needs, or would like, and this host doesn't have.
type Lack struct {
	// Request is what jobs ask for that get the executor: shell, or dockercompose.
	Request, Executor string
	protocol.CheckResult
}

// Jobs names the jobs that the lack is about.
func (l Lack) Jobs() string {
	if l.Request == "shell" {
		return "jobs without containers"
	}
	return "jobs with containers"
}

// CheckWorkers starts the workers of the executors that jobs are given to, and lets each tell what this host lacks for it. The error is
// that of a worker which doesn't answer; only the one for plain jobs has to be there. What the workers print goes to files in
// logDir, unless it is "".
func CheckWorkers(ctx context.Context, settings job.Settings, logDir string) (lacks []Lack, err error) {
	for request, executor := range settings.Executors {
		if _, err := settings.Finder.Find(executor); err != nil {
			if request == "shell" {
				return nil, err
			}
			continue
		}
		log := os.DevNull
		if logDir != "" {
			log = filepath.Join(logDir, executor+".log")
		}
		results, err := checkWorker(ctx, settings.Finder, executor, pluginhost.Launch{
			Env: settings.WorkerEnv, StderrPath: log, RunDir: settings.RunDir, Logger: hclog.NewNullLogger(),
		})
		if err != nil {
			return nil, err
		}
		for _, r := range results {
			if r.Status != protocol.CheckOK {
				lacks = append(lacks, Lack{Request: request, Executor: executor, CheckResult: r})
			}
		}
	}
	return lacks, nil
}

func checkWorker(ctx context.Context, workers plugins.Finder, executor string, launch pluginhost.Launch) ([]protocol.CheckResult, error) {
	worker, err := workers.Start(ctx, executor, launch)
	if err != nil {
		return nil, err
	}
	defer worker.Kill()
	if _, err := worker.Describe(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	return worker.Check(ctx)
}

// tellLacks says in the log what this host lacks for jobs. That ends nothing: an engine may come up later.
func (s *Supervisor) tellLacks(ctx context.Context) {
	settings := s.Current().Agent.Job
	settings.RunDir = s.runDir
	lacks, err := CheckWorkers(ctx, settings, "")
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.Logger.Warn("cannot look at what this host lacks for jobs", "error", err)
	}
	for _, l := range lacks {
		what := " have less than they could"
		if l.Status == protocol.CheckFailed {
			what = " will fail for now"
		}
		s.Logger.Warn(l.Jobs()+what, "executor", l.Executor, "check", l.Name, "reason", l.Message)
	}
}
