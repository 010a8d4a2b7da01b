package hubtest

import (
	"net/http"
	"sync"
	"time"

	"github.com/signalman-ci/signalman/internal/hub"
)

const (
	basePath = "/api/v1/self_hosted_agents"
	logPath  = "/api/v1/logs/"
)

// Hub is a running fake hub with its log service. All methods are safe for
// concurrent use.
type Hub struct {
	opts Options
	api  *listener
	logs *listener
	wg   sync.WaitGroup // requests being handled
	done chan struct{}  // closed by Close

	mu      sync.Mutex
	closed  bool
	changed chan struct{} // closed and replaced at every change
	timer   *time.Timer   // removes agents
	seq     int64
	agents  map[string]*agent // by access token
	jobs    map[string]*job
	queue   []*job
	syncs   map[string][]SyncRecord // by agent's name
	counts  map[Endpoint]int
	faults  []*FaultRule
}

// New starts a hub. It runs until [Hub.Close].
func New(o Options) (*Hub, error) {
	h := &Hub{
		opts:    o.withDefaults(),
		done:    make(chan struct{}),
		changed: make(chan struct{}),
		agents:  map[string]*agent{},
		jobs:    map[string]*job{},
		syncs:   map[string][]SyncRecord{},
		counts:  map[Endpoint]int{},
	}
	api := http.NewServeMux()
	api.Handle("POST "+basePath+"/register", h.endpoint(Register, h.register))
	api.Handle("POST "+basePath+"/sync", h.endpoint(Sync, h.sync))
	api.Handle("GET "+basePath+"/jobs/{id}", h.endpoint(GetJob, h.getJob))
	api.Handle("POST "+basePath+"/refresh", h.endpoint(Refresh, h.refresh))
	api.Handle("POST "+basePath+"/disconnect", h.endpoint(Disconnect, h.disconnect))
	logs := http.NewServeMux()
	logs.Handle("POST "+logPath+"{id}", h.endpoint(Logs, h.pushLog))

	var err error
	if h.api, err = listen(api); err != nil {
		return nil, err
	}
	if h.logs, err = listen(logs); err != nil {
		h.api.close()
		return nil, err
	}
	return h, nil
}

// Close ends the hub and waits for all it has started. Waiting calls return
// [ErrClosed].
func (h *Hub) Close() {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return
	}
	h.closed = true
	close(h.done)
	if h.timer != nil {
		h.timer.Stop()
	}
	h.mu.Unlock()
	h.api.close()
	h.logs.close()
	h.wg.Wait()
}

// Endpoint is the hub's host:port, for plain HTTP.
func (h *Hub) Endpoint() string {
	h.api.mu.Lock()
	defer h.api.mu.Unlock()
	return h.api.addr
}

// LogURL is where the log of a job is pushed to.
func (h *Hub) LogURL(jobID string) string {
	h.logs.mu.Lock()
	defer h.logs.mu.Unlock()
	return "http://" + h.logs.addr + logPath + jobID
}

// RegistrationToken is what agents register with.
func (h *Hub) RegistrationToken() string { return h.opts.RegistrationToken }

// Down is an outage: hub and log service close listeners and connections.
func (h *Hub) Down() {
	h.DownHub()
	h.DownLogs()
}

// Up ends an outage: both listen again, on the same ports.
func (h *Hub) Up() error {
	if err := h.UpHub(); err != nil {
		return err
	}
	return h.UpLogs()
}

// DownHub is an outage of the hub alone.
func (h *Hub) DownHub() { h.api.down() }

// UpHub ends an outage of the hub.
func (h *Hub) UpHub() error { return h.raise(h.api) }

// DownLogs is an outage of the log service alone.
func (h *Hub) DownLogs() { h.logs.down() }

// UpLogs ends an outage of the log service.
func (h *Hub) UpLogs() error { return h.raise(h.logs) }

func (h *Hub) raise(l *listener) error {
	h.mu.Lock()
	closed := h.closed
	h.mu.Unlock()
	if closed {
		return ErrClosed
	}
	return l.up()
}

func (h *Hub) now() time.Time {
	if h.opts.Now != nil {
		return h.opts.Now()
	}
	return time.Now()
}

// nextSeq numbers records across all agents and jobs.
func (h *Hub) nextSeq() int64 {
	h.seq++
	return h.seq
}

func (h *Hub) nextSyncAfter(s hub.State) int64 {
	ms := h.opts.NextSyncAfter.Milliseconds()
	if s == hub.StateRunningJob || s == hub.StateStartingJob || s == hub.StateStoppingJob {
		ms *= 2
	}
	return ms
}
