package conformance

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/signalman-ci/signalman/shared/protocol"
)

// DefaultTimeout is how long one case may take.
const DefaultTimeout = 2 * time.Minute

// Worker says what to check.
type Worker struct {
	// Path of the binary. Its name is worker-NAME, and NAME the name of its executor.
	Path string
	// Env is added to the worker's environment, which else holds only PATH, HOME and LANG of this process.
	Env []string
	// Compose is part of each job, for an executor whose jobs need containers.
	Compose *protocol.Compose
	// Extra holds settings of the executor's own.
	Extra map[string]string
	// Timeout bounds each case; 0 means DefaultTimeout.
	Timeout time.Duration
}

// Case is one thing that a worker has to do.
type Case struct {
	// Name is one word, for a subtest or a line of a report.
	Name string
	// Expects says, for the author of a worker, what it has to do.
	Expects string

	check func(context.Context, *bench) error
}

// Result is how a worker did in one case.
type Result struct {
	Case Case
	// Err is nil if the worker passed, and else says in one or several lines what it did instead.
	Err      error
	Duration time.Duration
}

// Check runs all cases, one after another.
func Check(ctx context.Context, w Worker) []Result {
	var results []Result
	for _, c := range Cases() {
		results = append(results, c.Check(ctx, w))
	}
	return results
}

// Check runs the case with processes and folders of its own.
func (c Case) Check(ctx context.Context, w Worker) Result {
	start := time.Now()
	err := c.run(ctx, w)
	return Result{Case: c, Err: err, Duration: time.Since(start)}
}

func (c Case) run(ctx context.Context, w Worker) error {
	if w.Timeout == 0 {
		w.Timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	b, err := newBench(w)
	if err != nil {
		return err
	}
	err = c.check(ctx, b)
	if err != nil {
		if said := b.stderr(); said != "" {
			err = fmt.Errorf("%w\nthe worker's last words on standard error:\n%s", err, said)
		}
	}
	if closeErr := b.close(); err == nil {
		err = closeErr
	}
	return err
}

// Run runs each case as a subtest.
func Run(t *testing.T, w Worker) {
	t.Helper()
	for _, c := range Cases() {
		t.Run(c.Name, func(t *testing.T) {
			if r := c.Check(t.Context(), w); r.Err != nil {
				t.Errorf("the worker does not conform.\nExpected: %s\n%v", c.Expects, r.Err)
			}
		})
	}
}
