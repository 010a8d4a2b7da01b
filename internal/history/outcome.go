package history

import (
	"bytes"
	"cmp"
	"fmt"
	"time"

	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/shared/eventlog"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// Close notes how a job has ended, for those who look at its folder afterwards: the result, and what its log says. The log must have
// ended.
func Close(f *jobdir.Folder, result protocol.Result) error {
	found := readLog(f.EventsPath())
	return f.Update(func(s *jobdir.State) {
		s.Outcome, s.LogEvents, s.LogBytes = string(result), found.events, found.bytes
		s.Ended = cmp.Or(found.ended, time.Now())
		if time.Since(s.Ended) < 2*time.Second { // the log's clock has whole seconds
			s.Ended = time.Now()
		}
		s.Reason = jobdir.Line(reason(*s, result, found))
	})
}

// reason says why a job has not passed, by what its supervisor knew and what its log says.
func reason(s jobdir.State, result protocol.Result, log contents) string {
	switch {
	case result == protocol.Passed:
		return ""
	case s.Reason != "":
		return s.Reason
	case result == protocol.Stopped:
		return cmp.Or(s.StopReason, hubStopped(s.StopRequested))
	case log.failed.Kind != "":
		return fmt.Sprintf("exit code %d: %s", log.failed.ExitCode, log.failed.Directive)
	default:
		return ""
	}
}

func hubStopped(requested bool) string {
	if requested {
		return "The job was stopped at the hub."
	}
	return ""
}

// contents is what history keeps of a log.
type contents struct {
	events, bytes int64
	// failed is the end of the command that made the job fail, its Kind "" if there was none.
	failed eventlog.Event
	ended  time.Time
}

var outputPrefix = []byte(`{"event":"cmd_output"`)

// exportDirective begins the job's commands, and a second time its epilogues, which don't change the result.
const exportDirective = "Exporting environment variables"

// readLog goes through a whole log, as far as it can be read.
func readLog(path string) contents {
	var c contents
	r, err := eventlog.OpenReader(path)
	if err != nil {
		return c
	}
	defer r.Close()
	exports := 0
	for {
		batch, err := r.Next(streamEvents, streamBytes)
		if err != nil || batch.Count == 0 {
			c.events, c.bytes = r.Position()
			return c
		}
		for line := range bytes.Lines(batch.Data) {
			if bytes.HasPrefix(line, outputPrefix) { // nearly all of a long log
				continue
			}
			e, err := eventlog.Parse(line)
			switch {
			case err != nil:
			case e.Kind == eventlog.KindCmdStarted && e.Directive == exportDirective:
				exports++
			case e.Kind == eventlog.KindCmdFinished && e.ExitCode != 0 && exports < 2:
				c.failed = e
			case e.Kind == eventlog.KindJobFinished:
				c.ended = time.Unix(e.Timestamp, 0)
			}
		}
	}
}
