package job

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/internal/pluginhost"
	"github.com/signalman-ci/signalman/internal/process"
	"github.com/signalman-ci/signalman/internal/request"
	"github.com/signalman-ci/signalman/shared/eventlog"
	"github.com/signalman-ci/signalman/shared/mask"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// problem is how a job ends without its worker.
type problem struct {
	directive string
	text      string // one line
	result    protocol.Result
}

func cannotStart(err error) *problem {
	text := strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	return &problem{directive: startDirective, text: text, result: protocol.Failed}
}

// ended is how a job ends that had begun, and whose worker is gone.
func ended(text string) *problem {
	return &problem{directive: endDirective, text: text, result: protocol.Failed}
}

// noteEnding keeps how a job ends: after the next restart that couldn't be found out any more.
func (j *Job) noteEnding(p problem) error {
	if p.text == "" || j.folder.State().Worker == nil {
		return nil
	}
	return j.folder.Update(func(s *jobdir.State) {
		s.Ending = &jobdir.Ending{Directive: p.directive, Text: p.text, Result: string(p.result)}
	})
}

func noted(e *jobdir.Ending) *problem {
	return &problem{directive: e.Directive, text: e.Text, result: protocol.Result(e.Result)}
}

// death says how a worker that had begun with the job died.
func (j *Job) death(status process.Status) string {
	return cmp.Or(j.outOfMemory(), fmt.Sprintf("The job's worker process died: %s%s.", status, j.lastWords(status)))
}

// lastWords is what the log of a worker that ended like this says of a crash, if it says something, to go into a sentence.
func (j *Job) lastWords(status process.Status) string {
	if words := pluginhost.LastWords(j.folder.WorkerLogPath(), status); words != "" {
		return " (" + words + ")"
	}
	return ""
}

// closeLog ends a log whose worker doesn't run: the open section, a section that says why, and the job. The open section's
// directive is masked already, as is the problem's text.
func (j *Job) closeLog(p problem, req *request.Request) error {
	if p.text == "" {
		return nil
	}
	j.logger.Error("the job ends without its worker", "reason", p.text, "result", p.result)
	path := j.folder.EventsPath()
	log, err := eventlog.Inspect(path)
	if err != nil {
		return err
	}
	last, _, err := eventlog.Last(path)
	if err != nil {
		return err
	}
	w, err := eventlog.OpenWriter(path, eventlog.Options{})
	if err != nil {
		return err
	}
	now := time.Now()
	var events []eventlog.Event
	if !log.Started {
		events = append(events, eventlog.JobStarted(now))
	}
	if log.Open {
		if last.Kind == eventlog.KindCmdOutput && !strings.HasSuffix(last.Output, "\n") {
			p.text = "\n" + p.text // a line of its own
		}
		events = append(events,
			eventlog.CmdOutput(now, p.text+"\n"), eventlog.CmdFinished(now, log.Section.Directive, 1, time.Unix(log.Section.Timestamp, 0), now))
	} else {
		events = append(events,
			eventlog.CmdStarted(now, p.directive), eventlog.CmdOutput(now, p.text+"\n"), eventlog.CmdFinished(now, p.directive, 1, now, now))
	}
	events = append(events, eventlog.JobFinished(now, string(p.result)))
	if err := errors.Join(w.Append(events...), w.Close()); err != nil {
		return err
	}
	return j.folder.Update(func(s *jobdir.State) {
		s.Reason = jobdir.Line(p.text)
		if req != nil {
			s.Name = jobdir.Line(req.Job.Name)
		}
	})
}

// masked is a text without the job's secrets.
func (j *Job) masked(text string, req *request.Request) string {
	if req == nil {
		return text
	}
	return mask.New(protocol.Secrets(j.prepared(req.Job), j.settings(""))).String(text)
}
