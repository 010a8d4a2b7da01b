package agent_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/uploader"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// watcher is the observer of slots, jobs and logs, and a tracer.
type watcher struct {
	mu             sync.Mutex
	synced, failed int
	opened, closed int
	shipped        uploader.Amount
	ended, traced  []agent.End
	faults         []job.Fault
}

func (w *watcher) locked(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *watcher) Synced(_ int, err error) {
	w.locked(func() {
		w.synced++
		if err != nil {
			w.failed++
		}
	})
}

func (w *watcher) Shipping(string, func() int64) agent.Shipping {
	w.locked(func() { w.opened++ })
	return w
}
func (w *watcher) Sending(time.Time, bool) {}
func (w *watcher) Sent(_ error, shipped uploader.Amount) {
	w.locked(func() { w.shipped.Events += shipped.Events })
}
func (w *watcher) Close()                              { w.locked(func() { w.closed++ }) }
func (w *watcher) JobEnded(e agent.End)                { w.locked(func() { w.ended = append(w.ended, e) }) }
func (w *watcher) Trace(e agent.End)                   { w.locked(func() { w.traced = append(w.traced, e) }) }
func (w *watcher) WorkerStarted(string, time.Duration) {}
func (w *watcher) JobStarted(string, time.Duration)    {}
func (w *watcher) PluginRefused(string)                {}
func (w *watcher) JobFault(f job.Fault)                { w.locked(func() { w.faults = append(w.faults, f) }) }

// observed runs a slot with a watcher.
func observed(t *testing.T, h *hubtest.Hub) (*watcher, *pausable) {
	w := &watcher{}
	return w, startPausable(t, h, func(s *agent.Settings, _ *gate) {
		s.Observer, s.Tracer, s.Job.Observer = w, w, w
		s.FlushTimeout = patience
		s.Limits.Garbled = time.Millisecond
	})
}

func TestObserver(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{NextSyncAfter: time.Millisecond})
	w, p := observed(t, h)
	waitForAgent(t, h)
	fault := h.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Status: 500, Times: 1})
	require.NoError(t, fault.WaitHits(t.Context(), 1))
	id := submit(t, h)
	p.runs(t, id)
	p.waitFor(t, "the job isn't traced", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.traced) == 1 })
	w.mu.Lock()
	defer w.mu.Unlock()
	assert.Positive(t, w.synced)
	assert.Equal(t, 1, w.failed)
	assert.Equal(t, []int{1, 1}, []int{w.opened, w.closed})
	require.Len(t, w.ended, 1)
	assert.Equal(t, w.ended, w.traced)
	end := w.ended[0]
	assert.Equal(t, id, end.JobID)
	assert.Equal(t, 1, end.Slot)
	assert.Equal(t, protocol.Failed, end.Result, "there is no worker here")
	assert.Empty(t, end.Executor)
	assert.False(t, end.Ended.Before(end.Taken))
	assert.FileExists(t, end.Log)
	assert.Equal(t, w.shipped.Events, end.Delivery.Shipped.Events)
	assert.Equal(t, int64(5), end.Delivery.Shipped.Events, "job, one section with a line, and their ends")
	assert.Positive(t, end.Delivery.Requests)
	assert.False(t, end.Delivery.Last.Before(end.Delivery.First))
	assert.Equal(t, []job.Fault{job.NoStart}, w.faults)
}

// A job whose request can't be had is over as well.
func TestObserverOfAJobWithoutARequest(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{NextSyncAfter: time.Millisecond})
	w, p := observed(t, h)
	h.AddFault(hubtest.Fault{Endpoint: hubtest.GetJob, Status: 200, Body: "<html>"})
	id := submit(t, h)
	p.waitFor(t, "the job doesn't end", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.ended) == 1 })
	w.mu.Lock()
	defer w.mu.Unlock()
	assert.Equal(t, id, w.ended[0].JobID)
	assert.Equal(t, protocol.Failed, w.ended[0].Result)
	assert.Equal(t, []job.Fault{job.BadRequest}, w.faults)
	assert.Zero(t, w.opened, "there is nothing to ship")
}
