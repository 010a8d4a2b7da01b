// Package history tells of jobs, running and ended ones, by what is in their folders. It only reads, so it needs no supervisor, and may
// look while one works.
package history

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/shared/eventlog"
)

// State is how far a job has come.
type State string

// The states. Reporting: the result is known here, and the hub not told yet.
const (
	Starting  State = "starting"
	Running   State = "running"
	Stopping  State = "stopping"
	Reporting State = "reporting"
	Ended     State = "ended"
)

// Job is a job as people see it.
type Job struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
	Slot int    `json:"slot"`
	// Executor is "" for a job that has, or had, no worker.
	Executor string `json:"executor,omitempty"`
	State    State  `json:"state"`
	// Result is passed, failed or stopped, "" until that is known; Reason says in one line why a job has not passed, or is to stop.
	Result   string    `json:"result,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished,omitzero"`
	// Seconds is how long the job took, or has taken so far.
	Seconds float64 `json:"duration_seconds"`
	// LogBytes and LogEvents are the size of the log on disk, Delivered how many of the events the hub has.
	LogBytes  int64 `json:"log_bytes"`
	LogEvents int64 `json:"log_events"`
	Delivered int64 `json:"delivered_events"`
}

// Duration is Seconds for people.
func (j Job) Duration() time.Duration {
	d := time.Duration(j.Seconds * float64(time.Second))
	if d < time.Minute {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}

// ErrNotFound says that there is no folder of such a job.
var ErrNotFound = errors.New("no such job")

// Get tells of one job of a folder of job folders. Its error is ErrNotFound if there is none.
func Get(jobs, id string) (Job, error) {
	f, err := jobdir.Open(jobdir.Path(jobs, id))
	if errors.Is(err, fs.ErrNotExist) {
		return Job{}, fmt.Errorf("%w: %.200q", ErrNotFound, id)
	}
	if err != nil {
		return Job{}, err
	}
	return describe(f), nil
}

// List tells of the newest jobs, at most limit of them and newest first, but of all that haven't ended. Of the folders only those that
// are told of are opened. What can't be read is left out. Without a folder of job folders there are none.
func List(jobs string, limit int) ([]Job, error) {
	names, err := newest(jobs, limit)
	if err != nil {
		return nil, err
	}
	list := []Job{}
	for _, name := range names {
		if f, err := jobdir.Open(filepath.Join(jobs, name)); err == nil {
			list = append(list, describe(f))
		}
	}
	slices.SortStableFunc(list, func(a, b Job) int { return b.Started.Compare(a.Started) })
	return list, nil
}

// newest are the names of the folders that List opens. The end of a job is the last thing to change its folder.
func newest(jobs string, limit int) ([]string, error) {
	type folder struct {
		name    string
		changed time.Time
		unended bool
	}
	entries, err := os.ReadDir(jobs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read the job folders: %w", err)
	}
	var found []folder
	for _, e := range entries {
		if !jobdir.IsFolder(e.Name()) {
			continue
		}
		if info, err := e.Info(); err == nil && info.IsDir() {
			found = append(found, folder{e.Name(), info.ModTime(), jobdir.Unended(filepath.Join(jobs, e.Name()))})
		}
	}
	slices.SortFunc(found, func(a, b folder) int {
		if a.unended != b.unended {
			if a.unended {
				return -1
			}
			return 1
		}
		return cmp.Or(b.changed.Compare(a.changed), cmp.Compare(a.name, b.name))
	})
	var names []string
	for i, f := range found {
		if i < limit || f.unended {
			names = append(names, f.name)
		}
	}
	return names, nil
}

// Latest stands for the job that was taken last, where Find is asked.
const Latest = "latest"

// Find gives the id of the job that a person means: by its id, the beginning of it if that is no other's, or Latest.
func Find(jobs, ref string) (string, error) {
	if ref == Latest {
		list, err := List(jobs, 1)
		if err != nil {
			return "", err
		}
		if len(list) == 0 {
			return "", fmt.Errorf("%w: there are none yet in %s", ErrNotFound, jobs)
		}
		return list[0].ID, nil
	}
	if job, err := Get(jobs, ref); !errors.Is(err, ErrNotFound) {
		return job.ID, err
	}
	entries, err := os.ReadDir(jobs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("cannot read the job folders: %w", err)
	}
	var match []string
	for _, e := range entries {
		if ref != "" && strings.HasPrefix(e.Name(), ref) && jobdir.IsFolder(e.Name()) && e.IsDir() {
			match = append(match, e.Name())
		}
	}
	switch len(match) {
	case 0:
		return "", fmt.Errorf("%w: %.200q; see: supervisor jobs", ErrNotFound, ref)
	case 1:
		job, err := jobdir.Open(filepath.Join(jobs, match[0]))
		if err != nil {
			return "", err
		}
		return job.ID(), nil
	default:
		return "", fmt.Errorf("%q begins the ids of %d jobs (%s, %s …): give more of it", ref, len(match), match[0], match[1])
	}
}

func describe(f *jobdir.Folder) Job {
	st := f.State()
	j := Job{
		ID: st.JobID, Name: st.Name, Slot: st.Slot, State: stateOf(st), Result: st.Outcome, Reason: cmp.Or(st.Reason, st.StopReason),
		Started: st.Taken, Finished: st.Ended, LogBytes: st.LogBytes, LogEvents: st.LogEvents, Delivered: st.Acked,
	}
	if st.Worker != nil {
		j.Executor = st.Worker.Executor
	}
	if j.State == Ended && j.Finished.IsZero() { // a folder of an earlier version
		j.Finished = st.Done
	}
	if j.LogEvents == 0 {
		j.LogEvents, j.LogBytes = measure(f.EventsPath())
	}
	if j.State == Ended && j.Result == "" {
		if last, ok, err := eventlog.Last(f.EventsPath()); err == nil && ok {
			j.Result = last.Result
		}
	}
	end := j.Finished
	if end.IsZero() {
		end = time.Now()
	}
	j.Seconds = math.Round(max(0, end.Sub(j.Started).Seconds())*1000) / 1000
	return j
}

func stateOf(st jobdir.State) State {
	switch {
	case !st.Done.IsZero():
		return Ended
	case st.Outcome != "":
		return Reporting
	case st.StopRequested || st.StopReason != "":
		return Stopping
	case st.Worker == nil:
		return Starting
	default:
		return Running
	}
}

// measure tells how long a log is; of one that can't be read nothing.
func measure(path string) (events, bytes int64) {
	r, err := eventlog.OpenReader(path)
	if err != nil {
		return 0, 0
	}
	defer r.Close()
	if r.SeekEnd() != nil {
		return 0, 0
	}
	return r.Position()
}
