package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/urfave/cli/v2"

	"github.com/signalman-ci/signalman/internal/admin"
)

// watchInterval is how often a status that is watched is asked for.
const watchInterval = 2 * time.Second

// watchStatus shows the status again and again until a signal ends it: on a terminal in place. A supervisor that doesn't answer, as
// while it is replaced, is waited for.
func watchStatus(c *cli.Context, socket string, show func(io.Writer, admin.Status) error) error {
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	draw := appendTo(c.App.Writer)
	if f, ok := c.App.Writer.(*os.File); ok && isatty.IsTerminal(f.Fd()) {
		draw = redraw(c.App.Writer)
	}
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		var frame bytes.Buffer
		switch st, err := admin.GetStatus(ctx, socket); {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			fmt.Fprintf(&frame, "%v; waiting for it\n", err)
		default:
			if err := show(&frame, st); err != nil {
				return err
			}
		}
		if err := draw(frame.Bytes()); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func appendTo(out io.Writer) func(frame []byte) error {
	return func(frame []byte) error {
		_, err := out.Write(frame)
		return err
	}
}

// redraw shows each frame in the place of the one before, on a screen that is cleared once.
func redraw(out io.Writer) func(frame []byte) error {
	const clear, home, toLineEnd, toScreenEnd = "\x1b[2J", "\x1b[H", "\x1b[K", "\x1b[J"
	begin := clear + home
	return func(frame []byte) error {
		screen := begin + string(bytes.ReplaceAll(frame, []byte("\n"), []byte(toLineEnd+"\n"))) + toScreenEnd
		begin = home
		_, err := io.WriteString(out, screen)
		return err
	}
}

// writeJSON prints for programs.
func writeJSON(out io.Writer, value any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(value)
}

// untilSignal runs f until it ends, or a signal ends it, which is no error.
func untilSignal(ctx context.Context, f func(context.Context) error) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := f(ctx)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}
