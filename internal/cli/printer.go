package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/signalman-ci/signalman/shared/eventlog"
)

const (
	printEvents = 1000
	printBytes  = 1 << 20
)

// printer shows a job's events on a terminal.
type printer struct {
	out io.Writer
	// midLine is set while the last output has no newline at its end.
	midLine bool
	err     error // the first of out
}

func (p *printer) event(e eventlog.Event) {
	switch e.Kind {
	case eventlog.KindCmdStarted:
		p.line("$ " + e.Directive)
	case eventlog.KindCmdOutput:
		p.print(e.Output)
		p.midLine = e.Output != "" && e.Output[len(e.Output)-1] != '\n'
	case eventlog.KindCmdFinished:
		if e.ExitCode != 0 {
			p.line(fmt.Sprintf("exit code %d", e.ExitCode))
		}
	case eventlog.KindJobFinished:
		p.line("job " + e.Result)
	}
}

func (p *printer) line(text string) {
	if p.midLine {
		p.print("\n")
		p.midLine = false
	}
	p.print(text + "\n")
}

func (p *printer) print(text string) {
	if _, err := io.WriteString(p.out, text); p.err == nil {
		p.err = err
	}
}

// lines shows events as they stand in a log, one JSON object a line.
func (p *printer) lines(raw []byte) {
	for line := range bytes.Lines(raw) {
		if e, err := eventlog.Parse(bytes.TrimSpace(line)); err == nil {
			p.event(e)
		}
	}
}

// follow shows a log while it grows, to its job_finished event.
func (p *printer) follow(ctx context.Context, path string) error {
	reader, err := eventlog.OpenReader(path)
	if err != nil {
		return err
	}
	defer reader.Close()
	for {
		last, ok, lastErr := eventlog.Last(path) // before the rest is read: what comes in between belongs to it
		ended := lastErr == nil && ok && last.Kind == eventlog.KindJobFinished
		batch, err := reader.Next(printEvents, printBytes)
		if err != nil {
			return err
		}
		p.lines(batch.Data)
		if batch.Count > 0 {
			continue
		}
		if ended {
			return nil
		}
		if err := reader.Wait(ctx); err != nil {
			return err
		}
	}
}
