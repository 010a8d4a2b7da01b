package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/signalman-ci/signalman/shared/eventlog"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const (
	exportDirective = "Exporting environment variables"
	filesDirective  = "Injecting Files"
	resultDirective = "Checking job result"
	preDirective    = "Running the pre-job hook configured in the agent"
	postDirective   = "Running the post-job hook configured in the agent"
)

// section is one cmd_started … cmd_finished pair of a log.
type section struct {
	directive string
	output    string
	exitCode  int
}

// record is a job's finished log.
type record struct {
	// sections are all of the log, those of the executor's own in front too.
	sections []section
	result   protocol.Result
}

// fields that an event must have besides event and timestamp.
var fields = map[eventlog.Kind][]string{
	eventlog.KindJobStarted:  nil,
	eventlog.KindCmdStarted:  {"directive"},
	eventlog.KindCmdOutput:   {"output"},
	eventlog.KindCmdFinished: {"directive", "exit_code", "started_at", "finished_at"},
	eventlog.KindJobFinished: {"result"},
}

// readRecord reads a finished log; its error lists all that is wrong with its form.
func readRecord(path string) (*record, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the event log: %w", err)
	}
	if !bytes.HasSuffix(raw, []byte("\n")) {
		return nil, errors.New("event log: the last line has no newline")
	}
	s := &scan{}
	for line := range bytes.Lines(raw) {
		s.line++
		s.add(bytes.TrimSuffix(line, []byte("\n")))
	}
	if s.record.result == "" {
		s.complain("it does not end with job_finished, which must be there before phase FINISHED")
	}
	return &s.record, errors.Join(s.errs...)
}

// scan is the reading of a log.
type scan struct {
	record record
	line   int
	open   bool // in a section
	errs   []error
}

func (s *scan) complain(format string, args ...any) {
	s.errs = append(s.errs, fmt.Errorf("event log, line %d: %s", s.line, fmt.Sprintf(format, args...)))
}

func (s *scan) add(line []byte) {
	if !utf8.Valid(line) {
		s.complain("it is not valid UTF-8")
	}
	event, err := eventlog.Parse(line)
	if err != nil {
		s.complain("%v", err)
		return
	}
	var present map[string]json.RawMessage
	_ = json.Unmarshal(line, &present) // Parse has
	want, known := fields[event.Kind]
	if !known {
		s.complain("the hub knows no event %q", event.Kind)
	}
	for _, name := range append([]string{"timestamp"}, want...) {
		if _, ok := present[name]; !ok {
			s.complain("%s lacks the field %s", event.Kind, name)
		}
	}
	if (s.line == 1) != (event.Kind == eventlog.KindJobStarted) {
		s.complain("job_started is the first event, and only that; here is %s", event.Kind)
	}
	if s.record.result != "" {
		s.complain("%s comes after job_finished", event.Kind)
	}
	s.take(event)
}

func (s *scan) take(event eventlog.Event) {
	sections := s.record.sections // what came before
	switch event.Kind {
	case eventlog.KindCmdStarted:
		if s.open {
			s.complain("the section %q begins before %q has ended", event.Directive, sections[len(sections)-1].directive)
		}
		s.open = true
		s.record.sections = append(s.record.sections, section{directive: event.Directive})
	case eventlog.KindCmdOutput:
		if !s.open {
			s.complain("there is output outside a section: %q", event.Output)
			return
		}
		sections[len(sections)-1].output += event.Output
	case eventlog.KindCmdFinished:
		if !s.open || sections[len(sections)-1].directive != event.Directive {
			s.complain("the section %q ends, but is not the one that has begun", event.Directive)
			return
		}
		s.open = false
		sections[len(sections)-1].exitCode = event.ExitCode
	case eventlog.KindJobFinished:
		if s.open {
			s.complain("job_finished comes while the section %q is open", sections[len(sections)-1].directive)
		}
		s.record.result = protocol.Result(event.Result)
	}
}

// body are the sections without the executor's own at the beginning.
func (r *record) body() []section {
	at := slices.IndexFunc(r.sections, func(s section) bool { return s.directive == exportDirective })
	return r.sections[max(at, 0):]
}

// wants compares the job's result and the order of its sections; exporting and injecting, which begin each job, are left
// out of want.
func (r *record) wants(result protocol.Result, want ...string) error {
	var errs []error
	if r.result != result {
		errs = append(errs, fmt.Errorf("the job's result is %q, not %q", r.result, result))
	}
	var have []string
	for _, s := range r.body() {
		have = append(have, s.directive)
	}
	if want = append([]string{exportDirective, filesDirective}, want...); !slices.Equal(have, want) {
		errs = append(errs, fmt.Errorf("the sections' directives are\n\t%s\nnot\n\t%s", quoted(have), quoted(want)))
	}
	return errors.Join(errs...)
}

func quoted(texts []string) string {
	var out []string
	for _, t := range texts {
		out = append(out, fmt.Sprintf("%q", t))
	}
	return strings.Join(out, "\n\t")
}

// printed compares the output and the exit code of a section; of several with the same directive it takes the last.
func (r *record) printed(directive, output string, exitCode int) error {
	return errors.Join(r.printedText(directive, output), r.exited(directive, exitCode))
}

func (r *record) printedText(directive, output string) error {
	if have := r.last(directive).output; have != output {
		return fmt.Errorf("the output of the section %q is\n\t%q\nnot\n\t%q", directive, have, output)
	}
	return nil
}

func (r *record) exited(directive string, exitCode int) error {
	if have := r.last(directive).exitCode; have != exitCode {
		return fmt.Errorf("the exit code of the section %q is %d, not %d", directive, have, exitCode)
	}
	return nil
}

func (r *record) last(directive string) section {
	for _, s := range slices.Backward(r.sections) {
		if s.directive == directive {
			return s
		}
	}
	return section{directive: directive, output: "(there is no such section)", exitCode: -1}
}
