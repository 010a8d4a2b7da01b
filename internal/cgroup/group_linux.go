package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	workerName = "worker"
	jobName    = "job"
)

// Group is the group of one job. It is safe for concurrent use.
type Group struct {
	host   *Host
	jobID  string
	places []place
}

// place is the cgroup of a group in one hierarchy.
type place struct {
	v2  bool
	dir string
	// scope is set when systemd made it.
	scope bool
}

func (p place) worker() string { return filepath.Join(p.dir, workerName) }
func (p place) job() string    { return filepath.Join(p.dir, jobName) }

// ours are the cgroups that we made: systemd removes its scope itself.
func (p place) ours() []string {
	if p.scope {
		return []string{p.worker(), p.job()}
	}
	return []string{p.dir}
}

func (g *Group) exists() bool {
	made := slices.ContainsFunc(g.all(place.ours), func(dir string) bool {
		_, err := os.Stat(dir)
		return err == nil
	})
	return made || slices.ContainsFunc(g.places, func(p place) bool { // a supervisor died before it made anything in its scope
		pids, err := pidsIn(p.dir)
		return p.scope && (err != nil || len(pids) > 0)
	})
}

// placeIn gives the index of the place in a seat's hierarchy, -1 if there is none.
func (g *Group) placeIn(s seat) int {
	if g == nil || !g.exists() {
		return -1
	}
	return slices.IndexFunc(g.places, func(p place) bool { return strings.HasPrefix(p.dir, s.mount+"/") })
}

func (g *Group) all(of func(place) []string) []string {
	var out []string
	for _, p := range g.places {
		out = append(out, of(p)...)
	}
	return out
}

func one(of func(place) string) func(place) []string {
	return func(p place) []string { return []string{of(p)} }
}

func (g *Group) tops() []string { return g.all(func(p place) []string { return []string{p.dir} }) }

// discard removes what a failed creation has made.
func (g *Group) discard() {
	for _, p := range g.places {
		for _, dir := range append([]string{p.worker(), p.job()}, p.ours()...) {
			_ = unix.Rmdir(dir)
		}
	}
}

// AddWorker moves a process, with all its threads, into worker/. What it starts stays there unless Start starts it.
func (g *Group) AddWorker(pid int) error {
	for _, dir := range g.all(one(place.worker)) {
		if err := write(dir, procsFile, strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("cannot move the job's worker into its cgroup: %w", err)
		}
	}
	return nil
}

// JobDirs are the folders of job/, one for each hierarchy, for protocol.Settings.Cgroups.
func (g *Group) JobDirs() []string { return g.all(one(place.job)) }

// Events are what the kernel has done to the worker, and to what the job started.
func (g *Group) Events() (worker, job Events, err error) {
	worker, errW := EventsOf(g.all(one(place.worker)))
	job, errJ := EventsOf(g.JobDirs())
	return worker, job, errors.Join(errW, errJ)
}

// Processes lists the processes of worker/ and job/ and of what is below.
func (g *Group) Processes() ([]int, error) { return procs(g.tops()) }

// Kill ends all that is in the group, the worker too, and returns when it is empty or ctx ends.
func (g *Group) Kill(ctx context.Context) error {
	if err := Kill(ctx, g.tops()); err != nil {
		return fmt.Errorf("cannot end all processes of job %s: %w", g.jobID, err)
	}
	return nil
}

// Remove removes the group's cgroups and those that the job made below them. It waits while processes are in them: Kill
// comes first. What is gone is no error.
func (g *Group) Remove(ctx context.Context) error {
	var errs []error
	for _, p := range g.places {
		for _, dir := range p.ours() {
			errs = append(errs, removeTree(ctx, dir))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	h := g.host
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.groups[g.jobID] == g {
		delete(h.groups, g.jobID)
	}
	for _, p := range g.places { // the folder of an earlier supervisor goes with its last group
		if folder := filepath.Dir(p.dir); slices.Contains(h.deserted, folder) {
			removeFolder(folder)
		}
	}
	return nil
}
