package doctor

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/signalman-ci/signalman/internal/supervisor"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// plain is what the hub asks for where a job has no containers.
const plain = "shell"

// use is an executor and what jobs get it.
type use struct {
	executor string
	jobs     []string
	// needed is set if plain jobs, which every hub has, get it.
	needed bool
}

// uses lists the executors that the settings name, each once.
func uses(s Settings) []use {
	byName := map[string]*use{}
	add := func(executor, jobs string, needed bool) {
		u := byName[executor]
		if u == nil {
			u = &use{executor: executor}
			byName[executor] = u
		}
		u.jobs = append(u.jobs, jobs)
		u.needed = u.needed || needed
	}
	for _, request := range slices.Backward(slices.Sorted(maps.Keys(s.Job.Executors))) {
		add(s.Job.Executors[request], supervisor.Lack{Request: request}.Jobs(), request == plain)
	}
	for _, executor := range s.Job.JobExecutors {
		add(executor, "jobs that choose it (job-executors)", false)
	}
	var all []use
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		all = append(all, *byName[name])
	}
	return all
}

// workers lets each worker answer, and tell what this host lacks for it.
func workers(ctx context.Context, s Settings) (checks []Check) {
	dir, err := os.MkdirTemp(supervisor.TempDir(), "signalman-")
	if err != nil {
		return []Check{{"workers", Failure, "cannot make a folder to try them in: " + err.Error(), ""}}
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			checks = append(checks, Check{"workers", Warning, "cannot remove " + dir + ": " + err.Error(), ""})
		}
	}()
	for _, u := range uses(s) {
		checks = append(checks, tryWorker(ctx, s, u, dir)...)
	}
	return checks
}

func tryWorker(ctx context.Context, s Settings, u use, dir string) []Check {
	name := "executor " + u.executor
	jobs := strings.Join(u.jobs, " and ")
	grave := Warning // jobs of that kind fail, and the others don't
	if u.needed {
		grave = Failure
	}
	if _, err := s.Job.Finder.Find(u.executor); err != nil {
		return []Check{{name, grave, fmt.Sprintf("%s will fail: %v", jobs, err), "install the worker, or set [executors] and plugin-dirs"}}
	}
	settings := s.Job
	settings.RunDir = dir
	settings.Executors = map[string]string{plain: u.executor}
	lacks, err := supervisor.CheckWorkers(ctx, settings, dir)
	if err != nil {
		return []Check{{name, grave, fmt.Sprintf("its worker doesn't answer: %v", err), "install the workers of this version"}}
	}
	var checks []Check
	for _, l := range lacks {
		c := Check{name, Warning, fmt.Sprintf("%s have less than they could: %s: %s", jobs, l.Name, l.Message), ""}
		if l.Status == protocol.CheckFailed {
			c.Status, c.Message = grave, fmt.Sprintf("%s will fail: %s: %s", jobs, l.Name, l.Message)
		}
		checks = append(checks, c)
	}
	if len(checks) == 0 {
		checks = []Check{ok(name, "it answers, and finds all it needs for %s", jobs)}
	}
	return checks
}
