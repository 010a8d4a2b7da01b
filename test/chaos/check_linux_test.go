package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/jobdir"
)

// reason is the line that the log of a job whose worker was killed says at its end, after what the command had printed.
var reason = regexp.MustCompile(`(?m:^)(?:The job's worker (?:process died: |ended |did not answer |left )|cannot start )[^\n]+\n$`)

// The ways in which a job may end, in the words of the report.
const (
	whole       = "whole"
	cutByStop   = "cut short by a stop"
	cutByDeath  = "cut short by the worker's death"
	neverTaken  = "stopped before it was taken"
	requestLost = "request lost on the way"
)

// checkJob tells how a job has ended, or what is wrong with that.
func (w *world) checkJob(p plan) (string, error) {
	job, _ := w.hub.Job(p.id)
	if job.State != hubtest.JobFinished {
		return "", fmt.Errorf("it has no result at the hub: %+v", job)
	}
	dir := filepath.Join(w.state, "jobs", p.id)
	if job.EndedBy == hubtest.EndedByHub {
		if !p.stop || job.Result != hub.ResultStopped || !job.RunningAt.IsZero() {
			return "", fmt.Errorf("its result is the hub's own: %+v", job)
		}
		if _, err := os.Stat(dir); err == nil {
			return "", fmt.Errorf("the hub had stopped it before it was taken, but there is a folder %s", dir)
		}
		return neverTaken, nil
	}
	folder, err := jobdir.Open(dir)
	if err != nil {
		return "", err
	}
	st := folder.State()
	if st.Done.IsZero() || st.Outcome != string(job.Result) {
		return "", fmt.Errorf("its folder says %q (done %v), the hub %q", st.Outcome, st.Done, job.Result)
	}
	lines := w.hub.LogLines(p.id)
	if err := hubtest.CheckLog(lines); err != nil {
		return "", fmt.Errorf("its log at the hub: %w", err)
	}
	disk, err := os.ReadFile(folder.EventsPath())
	if err != nil {
		return "", err
	}
	if at := firstDifference(disk, w.hub.Log(p.id)); at >= 0 {
		return "", fmt.Errorf("its log on disk and at the hub differ from byte %d on: %s", at, around(string(disk), string(w.hub.Log(p.id)), at))
	}
	if job.LogEventsAtEnd != job.LogEvents {
		return "", fmt.Errorf("its log had %d of %d events when the result came", job.LogEventsAtEnd, job.LogEvents)
	}
	sections, result, err := parse(lines)
	if err != nil {
		return "", err
	}
	if result != job.Result {
		return "", fmt.Errorf("its log says %q, the hub was told %q", result, job.Result)
	}
	return w.checkSections(p, p.sections(filepath.Join(w.state, "homes", fmt.Sprint(st.Slot))), sections, job)
}

// checkSections compares a log with what it is to be, or with the beginning of that if something has cut the job short.
func (w *world) checkSections(p plan, want, got []section, job hubtest.Job) (string, error) {
	n := 0
	for n < min(len(want), len(got)) && want[n] == got[n] {
		n++
	}
	if n == len(want) && n == len(got) && job.Result == p.result {
		return whole, nil
	}
	w.mu.Lock()
	killed, stopped := w.killed[p.id], w.stopped[p.id]
	w.mu.Unlock()
	rest := got[n:]
	if stopped && job.Result == hub.ResultStopped && (len(rest) == 0 || len(rest) == 1 && (rest[0].stoppedIn(want, n) || n == 0 &&
		rest[0] == section{"Starting the job", "The job was stopped before it began.\n", 1})) {
		return cutByStop, nil
	}
	if killed && len(rest) == 1 && rest[0].killedIn(want, n) && (job.Result == hub.ResultFailed || stopped && job.Result == hub.ResultStopped) {
		return cutByDeath, nil
	}
	if job.Fetches > 1 && n == 0 && len(rest) == 1 && job.Result == hub.ResultFailed &&
		rest[0].directive == "Starting the job" && strings.Contains(rest[0].output, hubtest.Sanitized) {
		return requestLost, nil // the hub gives it out once
	}
	how := fmt.Sprintf("result %q, expected %q; worker killed: %v; stopped: %v; %d fetches; ", job.Result, p.result, killed, stopped, job.Fetches)
	switch {
	case n == len(want) && n == len(got):
		return "", fmt.Errorf("%sthe log is right", how)
	case n == len(want):
		return "", fmt.Errorf("%sthere are %d sections too many: %.300s", how, len(rest), rest[0])
	case n == len(got):
		return "", fmt.Errorf("%sthe log ends before section %d, %.300s", how, n, want[n])
	}
	at := firstDifference([]byte(want[n].output), []byte(got[n].output))
	return "", fmt.Errorf("%ssection %d of %d (%d expected) differs: expected %.100q, exit code %d, %d bytes; got %.100q, exit code %d, %d bytes; output from byte %d on: %s",
		how, n, len(got), len(want), want[n].directive, want[n].code, len(want[n].output), got[n].directive, got[n].code, len(got[n].output),
		at, around(want[n].output, got[n].output, at))
}

// stoppedIn tells whether this is section n as a stop has cut it short.
func (s section) stoppedIn(want []section, n int) bool {
	if n >= len(want) || s.directive != want[n].directive {
		return false
	}
	if s.directive == "Checking job result" && s.output == "SEMAPHORE_JOB_RESULT=\n" { // the shell could not be asked any more
		return true
	}
	return s.code == 1 && beginning(want[n].output, s.output)
}

// killedIn tells whether this is section n as the worker's death has cut it short, or a section of its own, that says why.
func (s section) killedIn(want []section, n int) bool {
	at := reason.FindStringIndex(s.output)
	if at == nil || s.code != 1 {
		return false
	}
	said := s.output[:at[0]]
	if s.directive == "Ending the job" || s.directive == "Starting the job" {
		return said == ""
	}
	return n < len(want) && s.directive == want[n].directive &&
		(beginning(want[n].output, said) || beginning(want[n].output, strings.TrimSuffix(said, "\n")))
}

// beginning tells whether output is the beginning of all, which may be cut in the middle of a character or a line's end.
func beginning(all, output string) bool {
	return strings.HasPrefix(all, strings.TrimSuffix(strings.TrimRight(output, "\uFFFD"), "\r")) || strings.HasPrefix(all, output)
}

// parse takes a log that has passed CheckLog apart.
func parse(lines [][]byte) (sections []section, result hub.Result, err error) {
	var output strings.Builder
	for _, line := range lines {
		var e hubtest.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, "", err
		}
		switch e.Event {
		case "cmd_started":
			output.Reset()
		case "cmd_output":
			output.WriteString(e.Output)
		case "cmd_finished":
			sections = append(sections, section{directive: e.Directive, output: output.String(), code: *e.ExitCode})
		case "job_finished":
			result = hub.Result(e.Result)
		}
	}
	return sections, result, nil
}

// firstDifference is where two texts begin to differ; -1 if they don't.
func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// around shows two texts at a place.
func around(want, got string, at int) string {
	if at < 0 {
		return "none"
	}
	cut := func(s string) string { return s[min(max(at-60, 0), len(s)):min(at+120, len(s))] }
	return fmt.Sprintf("\n\texpected …%q…\n\tgot      …%q…", cut(want), cut(got))
}

// oneResult checks that the hub was told one result of each job, however often.
func oneResult(syncs []hubtest.SyncRecord) error {
	told := map[string]hub.Result{}
	for _, s := range syncs {
		if s.Request.State != hub.StateFinishedJob {
			continue
		}
		if before, ok := told[s.Request.JobID]; ok && before != s.Request.JobResult {
			return fmt.Errorf("the hub was told of job %s: %s, then %s", s.Request.JobID, before, s.Request.JobResult)
		}
		told[s.Request.JobID] = s.Request.JobResult
	}
	return nil
}
