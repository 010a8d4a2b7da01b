package compose

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/signalman-ci/signalman/internal/engine"
	"github.com/signalman-ci/signalman/internal/executor/told"
)

// engineLost is why a job ends whose engine does.
const engineLost = "The Docker engine was restarted, or has ended, while the job ran."

// lookLimit bounds a look at a container that has died.
const lookLimit = 10 * time.Second

// watcher follows what happens to a job's containers. Its methods may be called concurrently.
type watcher struct {
	engine *engine.Engine
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup

	board    *told.Board // for the log
	mu       sync.Mutex
	services map[string]*service // by id
	lost     error               // why no more events come
	changed  chan struct{}       // closed and made anew when something has happened
}

// watch begins to follow what happens to the containers that carry labels. It returns when nothing is missed any more, or
// when starting ends.
func watch(starting context.Context, eng *engine.Engine, labels map[string]string) (*watcher, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer context.AfterFunc(starting, cancel)()
	w := &watcher{engine: eng, ctx: ctx, cancel: cancel, board: told.NewBoard(), services: map[string]*service{}, changed: make(chan struct{})}
	started := make(chan struct{})
	w.done.Go(func() {
		err := eng.Events(ctx, labels, func() { close(started) }, w.happened)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.lost = err
		w.wake()
	})
	<-started
	return w, errors.Join(starting.Err(), w.lostEngine())
}

// close ends the watch: what happens from then on is our own doing.
func (w *watcher) close() {
	w.cancel()
	w.done.Wait()
}

func (w *watcher) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// service makes the death of a service known.
func (w *watcher) service(s *service) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.services[s.id] = s
}

func (w *watcher) happened(ev engine.Event) {
	w.mu.Lock()
	s := w.services[ev.ContainerID]
	w.mu.Unlock()
	text := ""
	if s != nil && ev.Kind == engine.EventDied && !w.engineEnds(w.ctx) {
		text = w.obituary(w.ctx, s)
	}
	if text != "" {
		w.board.Tell(text)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wake()
}

// obituary tells how a service has ended.
func (w *watcher) obituary(ctx context.Context, s *service) string {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	state, err := w.engine.State(ctx, s.id)
	if err != nil {
		return fmt.Sprintf("Warning: the service %s has ended.\n", s.Name)
	}
	why := fmt.Sprintf("with code %d", state.ExitCode)
	if state.OOMKilled {
		why += ", out of memory"
	}
	return w.withLastLines(ctx, fmt.Sprintf("Warning: the service %s has ended %s", s.Name, why), s.id) + "\n"
}

// withLastLines ends a sentence with the end of what a container has printed, if it wasn't silent.
func (w *watcher) withLastLines(ctx context.Context, sentence, id string) string {
	lines, err := w.engine.LastLines(ctx, id, lastLines)
	if err != nil || len(lines) == 0 {
		return sentence + "."
	}
	return sentence + "; its last lines:\n  " + strings.Join(lines, "\n  ")
}

// lostEngine tells that nothing more is learnt of the containers.
func (w *watcher) lostEngine() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost == nil || w.ctx.Err() != nil {
		return nil
	}
	return goneError{engineLost}
}

// engineEnds tells whether the engine, rather than a container that has ended, is why it has: one that ends takes no new connections.
func (w *watcher) engineEnds(ctx context.Context) bool {
	limited, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	eng, err := engine.Connect(limited)
	if err != nil {
		return ctx.Err() == nil
	}
	_ = eng.Close()
	return w.lostEngine() != nil // that was the next one
}

// awaitHealth waits until a service's health check says that it is healthy.
func (w *watcher) awaitHealth(ctx context.Context, s *service) error {
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		if err := w.lostEngine(); err != nil {
			return err
		}
		state, err := w.engine.State(ctx, s.id)
		switch {
		case err != nil:
			return fmt.Errorf("cannot look at container %s: %w", s.Name, err)
		case !state.Running:
			return errors.New(w.withLastLines(ctx, fmt.Sprintf("the service %s ended with code %d before its health check passed", s.Name, state.ExitCode), s.id))
		case state.Health == "healthy":
			return nil
		case state.Health == "unhealthy":
			return fmt.Errorf("the service %s is unhealthy%s", s.Name, inBrief("; its health check says: ", state.HealthOutput))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// inBrief is a text as one line of bounded length, behind a beginning; "" for an empty text.
func inBrief(begin, text string) string {
	const most = 300
	runes := []rune(strings.Join(strings.Fields(strings.ToValidUTF8(text, "\uFFFD")), " "))
	switch {
	case len(runes) == 0:
		return ""
	case len(runes) > most:
		return begin + string(runes[:most]) + "…"
	default:
		return begin + string(runes)
	}
}
