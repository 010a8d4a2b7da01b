package hubtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/signalman-ci/signalman/internal/hub"
)

// CheckLog tells whether the lines of a finished job's log are well-formed:
// valid UTF-8 and JSON with the fields of their event; job_started first and
// once, job_finished last and once; sections paired, not nested, with the same
// directive at both ends; output inside of sections only. Doubled or missing
// events show as far as they break that order. The error names the line, from 0.
func CheckLog(lines [][]byte) error {
	if len(lines) == 0 {
		return errors.New("the log is empty")
	}
	c := logCheck{}
	for i, line := range lines {
		if err := c.next(line); err != nil {
			return fmt.Errorf("line %d of the log: %w: %.200s", i, err, line)
		}
	}
	if !c.finished {
		return fmt.Errorf("the log has no job_finished after its %d lines", len(lines))
	}
	return nil
}

type logCheck struct {
	started  bool
	finished bool
	inside   bool   // a section is open
	open     string // its directive
}

// wireEvent tells absent fields from empty ones.
type wireEvent struct {
	Event      *string `json:"event"`
	Timestamp  *int64  `json:"timestamp"`
	Directive  *string `json:"directive"`
	Output     *string `json:"output"`
	ExitCode   *int    `json:"exit_code"`
	StartedAt  *int64  `json:"started_at"`
	FinishedAt *int64  `json:"finished_at"`
	Result     *string `json:"result"`
}

func (c *logCheck) next(line []byte) error {
	if !utf8.Valid(line) {
		return errors.New("it is not valid UTF-8")
	}
	var e wireEvent
	if err := json.Unmarshal(line, &e); err != nil {
		return fmt.Errorf("it is not an event in JSON: %w", err)
	}
	switch {
	case e.Event == nil:
		return errors.New("it has no event")
	case e.Timestamp == nil || *e.Timestamp <= 0:
		return errors.New("it has no timestamp")
	case c.finished:
		return errors.New("it comes after job_finished")
	case !c.started && *e.Event != "job_started":
		return errors.New("the log doesn't begin with job_started")
	}
	switch *e.Event {
	case "job_started":
		return c.jobStarted()
	case "cmd_started":
		return c.cmdStarted(e)
	case "cmd_output":
		return c.cmdOutput(e)
	case "cmd_finished":
		return c.cmdFinished(e)
	case "job_finished":
		return c.jobFinished(e)
	}
	return errors.New("the event is unknown")
}

func (c *logCheck) jobStarted() error {
	if c.started {
		return errors.New("a second job_started")
	}
	c.started = true
	return nil
}

func (c *logCheck) cmdStarted(e wireEvent) error {
	if e.Directive == nil {
		return errors.New("it has no directive")
	}
	if c.inside {
		return fmt.Errorf("a section begins inside of %q", c.open)
	}
	c.inside, c.open = true, *e.Directive
	return nil
}

func (c *logCheck) cmdOutput(e wireEvent) error {
	switch {
	case e.Output == nil:
		return errors.New("it has no output")
	case *e.Output == TrimmedOutput: // the service's own
		return nil
	case !c.inside:
		return errors.New("output outside of a section")
	case strings.Contains(*e.Output, "\r\n"):
		return errors.New("the output has a CR before an LF")
	}
	return nil
}

func (c *logCheck) cmdFinished(e wireEvent) error {
	switch {
	case e.Directive == nil || e.ExitCode == nil || e.StartedAt == nil || e.FinishedAt == nil:
		return errors.New("it lacks directive, exit_code, started_at or finished_at")
	case !c.inside:
		return errors.New("a section ends that hasn't begun")
	case *e.Directive != c.open:
		return fmt.Errorf("a section ends while %q is open", c.open)
	}
	c.inside, c.open = false, ""
	return nil
}

func (c *logCheck) jobFinished(e wireEvent) error {
	switch {
	case e.Result == nil || !hub.Result(*e.Result).Valid():
		return errors.New("it has no valid result")
	case c.inside:
		return fmt.Errorf("the job ends inside of %q", c.open)
	}
	c.finished = true
	return nil
}
