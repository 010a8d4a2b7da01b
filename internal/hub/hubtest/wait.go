package hubtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// ErrClosed is returned by what waits when the hub is closed.
var ErrClosed = errors.New("the fake hub is closed")

// changedLocked wakes all who wait for a condition.
func (h *Hub) changedLocked() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// wait blocks until look returns true. look is called with the lock held and
// returns a test to be made without it.
func (h *Hub) wait(ctx context.Context, look func() (holds func() bool)) error {
	for {
		h.mu.Lock()
		holds := look()
		changed := h.changed
		h.mu.Unlock()
		if holds() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-h.done:
			return ErrClosed
		}
	}
}

// WaitAgents waits until the agents, sorted by name, fulfil a condition.
func (h *Hub) WaitAgents(ctx context.Context, cond func([]Agent) bool) error {
	var last []Agent
	err := h.wait(ctx, func() func() bool {
		last = h.agentsLocked()
		return func() bool { return cond(last) }
	})
	if err != nil {
		return fmt.Errorf("cannot wait for the agents, now %+v: %w", last, err)
	}
	return nil
}

// WaitJob waits until a job fulfils a condition and returns it as it was then.
// It may be called before the job is submitted.
func (h *Hub) WaitJob(ctx context.Context, id string, cond func(Job) bool) (Job, error) {
	var last Job
	err := h.wait(ctx, func() func() bool {
		j, ok := h.jobs[id]
		if !ok {
			return func() bool { return false }
		}
		last = j.snapshot()
		return func() bool { return cond(last) }
	})
	if err != nil {
		return last, fmt.Errorf("cannot wait for job %s, now %+v: %w", id, last, err)
	}
	return last, nil
}

// WaitFinished waits for a job's end, see [Job.Ended].
func (h *Hub) WaitFinished(ctx context.Context, id string) (Job, error) {
	return h.WaitJob(ctx, id, Job.Ended)
}

// WaitLog waits until the log of a job has more than from events or the job has
// ended, and returns the lines from there on: none is the end. The lines must
// not be changed.
func (h *Hub) WaitLog(ctx context.Context, id string, from int) ([][]byte, error) {
	job, err := h.WaitJob(ctx, id, func(j Job) bool { return j.LogEvents > from || j.Ended() })
	if err != nil {
		return nil, err
	}
	if job.LogEvents <= from {
		return nil, nil
	}
	return h.logOf(id).lines(from), nil
}

// WaitRequests waits until at least n requests have come to an endpoint.
func (h *Hub) WaitRequests(ctx context.Context, e Endpoint, n int) error {
	err := h.wait(ctx, func() func() bool {
		enough := h.counts[e] >= n
		return func() bool { return enough }
	})
	if err != nil {
		return fmt.Errorf("cannot wait for %d requests to %s, now %d: %w", n, e, h.Requests(e), err)
	}
	return nil
}

// WaitOutput waits until the commands of a job have printed a text, as far as its log is here.
func (h *Hub) WaitOutput(ctx context.Context, id, text string) error {
	for from := 0; ; {
		lines, err := h.WaitLog(ctx, id, from)
		if err != nil {
			return fmt.Errorf("waiting for %q: %w", text, err)
		}
		output, err := h.Output(id)
		switch {
		case err != nil:
			return err
		case strings.Contains(output, text):
			return nil
		case len(lines) == 0:
			return fmt.Errorf("the job ended without %q", text)
		}
		from += len(lines)
	}
}
