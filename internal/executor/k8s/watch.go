package k8s

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/signalman-ci/signalman/internal/executor/told"
	"github.com/signalman-ci/signalman/internal/kube"
)

const (
	// lastLines is how many lines of a dead container are shown; lookLimit bounds the look at them.
	lastLines = 10
	lookLimit = 10 * time.Second
)

// watcher follows what becomes of a job's pod. Its methods may be called concurrently.
type watcher struct {
	cluster *kube.Cluster
	name    string // the pod's
	ctx     context.Context
	cancel  context.CancelFunc
	follows []func() // that wait for the end of each
	looks   sync.WaitGroup
	board   *told.Board // for the log

	mu      sync.Mutex
	pod     *corev1.Pod // as it was seen last
	gone    bool
	events  []*corev1.Event // that haven't been taken yet
	dead    map[string]bool // containers whose end was told
	ours    bool            // what happens from now on is our own doing
	changed chan struct{}   // closed and made anew when something has happened
}

// watch begins to follow a pod and its events. It returns when nothing is missed any more. noEvents is why the events aren't to be had.
func watch(ctx context.Context, cluster *kube.Cluster, pod *corev1.Pod) (w *watcher, noEvents, err error) {
	w = &watcher{cluster: cluster, name: pod.Name, board: told.NewBoard(), pod: pod, dead: map[string]bool{}, changed: make(chan struct{})}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	defer context.AfterFunc(ctx, w.cancel)()
	var ofPod, ofEvents func()
	var starts sync.WaitGroup
	starts.Go(func() { ofPod, err = cluster.FollowPod(w.ctx, pod, w.podChanged) })
	starts.Go(func() { ofEvents, noEvents = cluster.FollowEvents(w.ctx, pod, w.happened) })
	starts.Wait()
	for _, wait := range []func(){ofPod, ofEvents} {
		if wait != nil {
			w.follows = append(w.follows, wait)
		}
	}
	if err = errors.Join(ctx.Err(), err); err != nil {
		w.close()
		return nil, nil, err
	}
	return w, noEvents, nil
}

// close ends the watch.
func (w *watcher) close() {
	w.cancel()
	for _, wait := range w.follows {
		wait()
	}
	w.looks.Wait()
}

func (w *watcher) podChanged(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if pod == nil {
		w.gone = true
	} else {
		w.pod = pod
		w.noteDead()
	}
	w.wake()
}

func (w *watcher) happened(event *corev1.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, event)
	w.wake()
}

func (w *watcher) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// state is the pod as it was seen last, whether it is gone, and what is closed when that has changed.
func (w *watcher) state() (pod *corev1.Pod, gone bool, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod, w.gone, w.changed
}

// takeEvents gives the events since the last call.
func (w *watcher) takeEvents() []*corev1.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	events := w.events
	w.events = nil
	return events
}

// disown makes what happens from now on our own doing.
func (w *watcher) disown() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ours = true
}

// noteDead has the death of containers other than main told, each once.
func (w *watcher) noteDead() {
	if w.ours || endOf(w.pod, false) != "" {
		return
	}
	for _, s := range w.pod.Status.ContainerStatuses {
		state := s.State.Terminated
		if state == nil || s.Name == mainContainer || w.dead[s.Name] {
			continue
		}
		w.dead[s.Name] = true
		how := fmt.Sprintf("Warning: the container %s %s", s.Name, howItEnded(state, memoryLimit(w.pod, s.Name)))
		w.looks.Go(func() { w.board.Tell(w.withLastLines(w.ctx, how, s.Name) + "\n") })
	}
}

// withLastLines ends a sentence with the end of what a container has printed, if it wasn't silent.
func (w *watcher) withLastLines(ctx context.Context, sentence, container string) string {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	lines, err := w.cluster.LastLines(ctx, w.name, container, lastLines)
	lines = slices.DeleteFunc(lines, func(line string) bool { return strings.TrimSpace(line) == "" })
	if err != nil || len(lines) == 0 {
		return sentence + "."
	}
	return sentence + "; its last lines:\n  " + strings.Join(lines, "\n  ")
}

// end tells why nothing more can run in main; nil while something can.
func (w *watcher) end(ctx context.Context) error {
	pod, gone, _ := w.state()
	why := endOf(pod, gone)
	if why == "" {
		return nil
	}
	if state := terminated(pod, mainContainer); state != nil && !gone && strings.HasPrefix(why, "The container main") {
		return goneError{w.withLastLines(ctx, why, mainContainer)}
	}
	return goneError{why + "."}
}

// awaitGone waits until there is no such pod any more.
func (w *watcher) awaitGone(ctx context.Context) error {
	for {
		pod, gone, changed := w.state()
		if gone {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("the pod %s was deleted and is there still: see whether its node %s is well: %w", pod.Name, pod.Spec.NodeName, ctx.Err())
		}
	}
}
