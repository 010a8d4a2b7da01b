package eventlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// Kind tells what an event is about.
type Kind string

// The kinds of events, as the hub names them.
const (
	KindJobStarted  Kind = "job_started"
	KindCmdStarted  Kind = "cmd_started"
	KindCmdOutput   Kind = "cmd_output"
	KindCmdFinished Kind = "cmd_finished"
	KindJobFinished Kind = "job_finished"
)

// Event is one line of the log. Only the fields of its kind mean something, and only they are written. All times are Unix
// seconds.
type Event struct {
	Kind      Kind
	Timestamp int64
	// Directive names the command of a cmd_started or cmd_finished.
	Directive string
	// Output is the text of a cmd_output.
	Output string
	// ExitCode, StartedAt and FinishedAt belong to a cmd_finished.
	ExitCode   int
	StartedAt  int64
	FinishedAt int64
	// Result is how the job of a job_finished ended: passed, failed or stopped.
	Result string
}

// JobStarted is the first event of a log.
func JobStarted(t time.Time) Event {
	return Event{Kind: KindJobStarted, Timestamp: t.Unix()}
}

// CmdStarted opens the section of a command.
func CmdStarted(t time.Time, directive string) Event {
	return Event{Kind: KindCmdStarted, Timestamp: t.Unix(), Directive: directive}
}

// CmdOutput is a piece of what the running command prints.
func CmdOutput(t time.Time, output string) Event {
	return Event{Kind: KindCmdOutput, Timestamp: t.Unix(), Output: output}
}

// CmdFinished closes the section of a command.
func CmdFinished(t time.Time, directive string, exitCode int, started, finished time.Time) Event {
	return Event{
		Kind: KindCmdFinished, Timestamp: t.Unix(), Directive: directive, ExitCode: exitCode,
		StartedAt: started.Unix(), FinishedAt: finished.Unix(),
	}
}

// JobFinished is the last event of a log.
func JobFinished(t time.Time, result string) Event {
	return Event{Kind: KindJobFinished, Timestamp: t.Unix(), Result: result}
}

// AppendJSON appends the event to dst as one JSON object, without a newline behind it. Bytes that are not UTF-8 become
// U+FFFD.
func (e Event) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"event":`...)
	dst = appendString(dst, string(e.Kind))
	dst = append(dst, `,"timestamp":`...)
	dst = strconv.AppendInt(dst, e.Timestamp, 10)
	switch e.Kind {
	case KindCmdStarted, KindCmdFinished:
		dst = append(dst, `,"directive":`...)
		dst = appendString(dst, e.Directive)
	case KindCmdOutput:
		dst = append(dst, `,"output":`...)
		dst = appendString(dst, e.Output)
	case KindJobFinished:
		dst = append(dst, `,"result":`...)
		dst = appendString(dst, e.Result)
	}
	if e.Kind == KindCmdFinished {
		dst = append(dst, `,"exit_code":`...)
		dst = strconv.AppendInt(dst, int64(e.ExitCode), 10)
		dst = append(dst, `,"started_at":`...)
		dst = strconv.AppendInt(dst, e.StartedAt, 10)
		dst = append(dst, `,"finished_at":`...)
		dst = strconv.AppendInt(dst, e.FinishedAt, 10)
	}
	return append(dst, '}')
}

// appendString is what makes a flood of output cheap: it escapes only what JSON demands and copies the runs between.
func appendString(dst []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = string([]rune(s))
	}
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	copied := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[copied:i]...)
		copied = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
	}
	dst = append(dst, s[copied:]...)
	return append(dst, '"')
}

// Parse decodes a line of the log, with or without its newline. It takes what a plugin in another language may write:
// fields in any order, unknown ones, a kind it doesn't know, and times with a fraction. It fails for what isn't a JSON
// object or names no kind.
func Parse(line []byte) (Event, error) {
	var raw struct {
		Event      Kind   `json:"event"`
		Timestamp  number `json:"timestamp"`
		Directive  string `json:"directive"`
		Output     string `json:"output"`
		ExitCode   number `json:"exit_code"`
		StartedAt  number `json:"started_at"`
		FinishedAt number `json:"finished_at"`
		Result     string `json:"result"`
	}
	if err := json.Unmarshal(line, &raw); err != nil {
		return Event{}, fmt.Errorf("cannot parse the event: %w", err)
	}
	if raw.Event == "" {
		return Event{}, errors.New("cannot parse the event: it names no kind")
	}
	return Event{
		Kind: raw.Event, Timestamp: int64(raw.Timestamp), Directive: raw.Directive, Output: raw.Output,
		ExitCode: int(raw.ExitCode), StartedAt: int64(raw.StartedAt), FinishedAt: int64(raw.FinishedAt), Result: raw.Result,
	}, nil
}

// number is an integer that may come with a fraction, which is dropped.
type number int64

func (n *number) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		return nil
	}
	if i, err := strconv.ParseInt(string(text), 10, 64); err == nil {
		*n = number(i)
		return nil
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return fmt.Errorf("%s is no number", text)
	}
	*n = number(f)
	return nil
}
