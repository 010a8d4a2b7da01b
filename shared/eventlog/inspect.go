package eventlog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// State is how far a log has come.
type State struct {
	// Started and Finished tell whether job_started and job_finished are there.
	Started, Finished bool
	// Open tells that a command was started and not finished; Section is its cmd_started.
	Open    bool
	Section Event
}

// Inspect reads a whole log, with what an unclosed one has beside it, and tells its state. It is for a log whose writer
// has died, or whose writing can't go on. A log that doesn't exist is an empty one.
func Inspect(path string) (State, error) {
	var state State
	for _, suffix := range []string{"", dropSuffix, olderSuffix, newerSuffix} {
		if err := Walk(path+suffix, state.apply); err != nil {
			return state, err
		}
	}
	return state, nil
}

func (s *State) apply(event Event) bool {
	switch event.Kind {
	case KindJobStarted:
		s.Started = true
	case KindJobFinished:
		s.Finished = true
	case KindCmdStarted:
		s.Open, s.Section = true, event
	case KindCmdFinished:
		s.Open, s.Section = false, Event{}
	}
	return true
}

// Walk gives f the events of a log in their order, without output, until f returns false. It passes over lines that are no events. A
// log that doesn't exist has none.
func Walk(path string, f func(Event) bool) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the event log: %w", err)
	}
	defer file.Close()
	lines := scanLines(file)
	for lines.Scan() {
		if isOutput(lines.Bytes()) {
			continue
		}
		event, err := Parse(lines.Bytes())
		if err != nil || event.Kind == KindCmdOutput { // a plugin may write its fields in another order
			continue
		}
		if !f(event) {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("cannot read the event log: %w", err)
	}
	return nil
}

// Trimmed tells whether a log that is closed lacks output, as it had reached its limit. A log that doesn't exist lacks none.
func Trimmed(path string) (bool, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot read the event log: %w", err)
	}
	defer file.Close()
	lines := scanLines(file)
	for lines.Scan() {
		if !bytes.Contains(lines.Bytes(), []byte(leftOut)) {
			continue
		}
		if event, err := Parse(lines.Bytes()); err == nil && event.Kind == KindCmdOutput && strings.HasPrefix(event.Output, "\n[signalman] ") {
			return true, nil
		}
	}
	if err := lines.Err(); err != nil {
		return false, fmt.Errorf("cannot read the event log: %w", err)
	}
	return false, nil
}

// Last is the last complete event of a log, or of what an unclosed one has beside it, read from the end. It is false if
// there is none, or no log.
func Last(path string) (Event, bool, error) {
	for _, suffix := range []string{newerSuffix, olderSuffix, dropSuffix, ""} {
		event, found, err := lastIn(path + suffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Event{}, false, fmt.Errorf("cannot read the event log: %w", err)
		}
		if found {
			return event, true, nil
		}
	}
	return Event{}, false, nil
}

func lastIn(path string) (Event, bool, error) {
	file, err := os.Open(path)
	if err != nil {
		return Event{}, false, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return Event{}, false, err
	}
	end, err := lineStart(file, info.Size())
	for err == nil && end > 0 {
		var start int64
		if start, err = lineStart(file, end-1); err != nil {
			break
		}
		if end-start <= maxLine {
			line := make([]byte, end-start)
			if _, err = file.ReadAt(line, start); err != nil {
				break
			}
			if event, err := Parse(line); err == nil {
				return event, true, nil
			}
		}
		end = start
	}
	return Event{}, false, err
}
