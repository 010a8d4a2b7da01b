package eventlog

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"
)

// Text writes an event log as a person reads it: each directive on a line of its own, then its output, and the exit code
// of a command that failed. It streams, and passes over lines that are no events.
func Text(w io.Writer, r io.Reader) error {
	out := bufio.NewWriter(w)
	text := NewTextWriter(out)
	lines := scanLines(r)
	for lines.Scan() {
		text.line(lines.Bytes())
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("cannot read the event log: %w", err)
	}
	if err := text.Close(); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("cannot write the log's text: %w", err)
	}
	return nil
}

// TextWriter is Text for a log that comes in pieces. It is for one goroutine.
type TextWriter struct {
	out      io.Writer
	lineOpen bool
	err      error
}

// NewTextWriter makes a TextWriter that writes to out.
func NewTextWriter(out io.Writer) *TextWriter { return &TextWriter{out: out} }

// Write takes whole lines of a log, as a Batch has them. Its error is that of the writer below.
func (t *TextWriter) Write(lines []byte) (int, error) {
	for line := range bytes.Lines(lines) {
		t.line(line)
	}
	if t.err != nil {
		return 0, t.err
	}
	return len(lines), nil
}

// Close ends a last line that is open. The writer below stays as it is.
func (t *TextWriter) Close() error {
	if t.lineOpen {
		t.write("\n")
	}
	return t.err
}

func (t *TextWriter) line(line []byte) {
	event, err := Parse(line)
	if err != nil {
		return
	}
	switch event.Kind {
	case KindCmdStarted:
		t.heading(event.Directive)
	case KindCmdOutput:
		t.write(event.Output)
	case KindCmdFinished:
		if event.ExitCode != 0 {
			t.heading(fmt.Sprintf("exit code: %d", event.ExitCode))
		}
	}
}

func (t *TextWriter) heading(text string) {
	if t.lineOpen {
		t.write("\n")
	}
	t.write(strings.TrimSuffix(text, "\n") + "\n")
}

func (t *TextWriter) write(text string) {
	if text == "" || t.err != nil {
		return
	}
	if _, err := io.WriteString(t.out, text); err != nil {
		t.err = fmt.Errorf("cannot write the log's text: %w", err)
	}
	t.lineOpen = !strings.HasSuffix(text, "\n")
}
