// Command bench measures what Signalman promises to be good at: how soon jobs begin and end, how fast logs travel, and how
// little all of it takes. Real supervisor and worker processes talk over HTTP to a hub in this process.
//
//	go run ./test/bench -o docs/benchmarks.md
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

// limit bounds the whole run.
const limit = 15 * time.Minute

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

func run() (err error) {
	out := flag.String("o", "", "file to write the table to, besides standard output")
	bin := flag.String("bin", "bin", "folder of the supervisor and its workers")
	only := flag.String("only", "", "measurements to make, with commas between them; all if empty")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()

	dir, err := os.MkdirTemp("", "signalman-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binaries, err := filepath.Abs(*bin)
	if err != nil {
		return err
	}
	b := bench{dir: dir, binaries: binaries}
	m, err := lookAtMachine()
	if err != nil {
		return err
	}
	r := report{machine: m}
	for _, part := range []struct {
		name    string
		measure func(context.Context) ([]figure, error)
	}{
		{"jobs", b.jobs}, {"workers", b.workers}, {"containers", b.containers}, {"pods", b.pods}, {"flood", b.floods}, {"masking", b.masking},
		{"lines", b.lines}, {"trickle", b.trickle}, {"idle", b.idle},
	} {
		if *only != "" && !strings.Contains(","+*only+",", ","+part.name+",") {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring: %s …\n", part.name)
		figures, err := part.measure(ctx)
		if why := skipped(""); errors.As(err, &why) {
			fmt.Fprintf(os.Stderr, "skipped: %s: %s\n", part.name, why)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		r.figures = append(r.figures, figures...)
	}
	r.machine.LoadAfter = loadAverage()
	text := r.markdown()
	fmt.Print(text)
	if *out == "" {
		return nil
	}
	return os.WriteFile(*out, []byte(text), 0o644)
}
