package eventlog

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Text writes an event log as a person reads it: each directive on a line of its own, then its output, and the exit code
// of a command that failed. It streams, and passes over lines that are no events.
func Text(w io.Writer, r io.Reader) error {
	out := bufio.NewWriter(w)
	lineOpen := false
	write := func(text string) {
		if text != "" {
			_, _ = out.WriteString(text) // Flush returns the error
			lineOpen = !strings.HasSuffix(text, "\n")
		}
	}
	writeLine := func(text string) {
		if lineOpen {
			write("\n")
		}
		write(strings.TrimSuffix(text, "\n") + "\n")
	}
	lines := scanLines(r)
	for lines.Scan() {
		event, err := Parse(lines.Bytes())
		if err != nil {
			continue
		}
		switch event.Kind {
		case KindCmdStarted:
			writeLine(event.Directive)
		case KindCmdOutput:
			write(event.Output)
		case KindCmdFinished:
			if event.ExitCode != 0 {
				writeLine(fmt.Sprintf("exit code: %d", event.ExitCode))
			}
		}
	}
	if lineOpen {
		write("\n")
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("cannot read the event log: %w", err)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("cannot write the log's text: %w", err)
	}
	return nil
}
