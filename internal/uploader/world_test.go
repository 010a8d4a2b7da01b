package uploader

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 90 * time.Second

// world is a hub with a running job, and that job's log on disk.
type world struct {
	t      *testing.T
	hub    *hubtest.Hub
	client *hub.Client
	job    string
	access string // token
	token  string // of the log
	path   string
	count  int // events written

	mu    sync.Mutex
	saved []note
	lost  Lost // as noted last
}

// note is one call of Options.Save.
type note struct {
	certain Position
	lostTo  int64
	until   bool // it is known how long the request may still be carried out
}

func newWorld(t *testing.T, o hubtest.Options, transport *http.Transport) *world {
	t.Helper()
	if transport == nil {
		transport = &http.Transport{}
	}
	t.Cleanup(transport.CloseIdleConnections)
	w := &world{t: t, hub: hubtest.Start(t, o), path: filepath.Join(t.TempDir(), "events.jsonl")}
	var err error
	w.client, err = hub.New(hub.Options{
		Endpoint: w.hub.Endpoint(), NoHTTPS: true, UserAgent: "test/1", HTTPClient: &http.Client{Transport: transport},
	})
	require.NoError(t, err)
	w.job, err = w.hub.Submit(hubtest.Request{Commands: []string{"true"}})
	require.NoError(t, err)
	agent, err := w.client.Register(w.ctx(), w.hub.RegistrationToken(), hub.RegisterRequest{Name: "slot"})
	require.NoError(t, err)
	w.access = agent.Token
	answer, err := w.client.Sync(w.ctx(), w.access, hub.SyncRequest{State: hub.StateWaitingForJobs})
	require.NoError(t, err)
	require.Equal(t, w.job, answer.JobID)
	raw, err := w.client.GetJob(w.ctx(), w.access, w.job)
	require.NoError(t, err)
	var req struct{ Logger struct{ Token string } }
	require.NoError(t, json.Unmarshal(raw, &req))
	w.token = req.Logger.Token
	_, err = w.client.Sync(w.ctx(), w.access, hub.SyncRequest{State: hub.StateRunningJob, JobID: w.job})
	require.NoError(t, err)
	return w
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

// Push and Refresh make the world a Service, as the agent's is.
func (w *world) Push(ctx context.Context, token string, startFrom int64, body []byte) error {
	return w.client.PushLog(ctx, w.hub.LogURL(w.job), token, startFrom, body)
}

func (w *world) Refresh(ctx context.Context) (string, error) {
	return w.client.RefreshLogToken(ctx, w.access)
}

func (w *world) save(certain Position, lost Lost) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.saved = append(w.saved, note{certain, lost.To, !lost.Until.IsZero()})
	w.lost = lost
	return nil
}

func (w *world) lastLost() Lost {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}

func (w *world) lastSaved() note {
	w.mu.Lock()
	defer w.mu.Unlock()
	require.NotEmpty(w.t, w.saved)
	return w.saved[len(w.saved)-1]
}

// options are for an uploader of the whole log that takes no lost request to be late.
func (w *world) options() Options {
	return Options{
		Path: w.path, Service: w, Token: w.token, Save: w.save, LateLimit: time.Millisecond,
		Logger: hclog.NewNullLogger(),
	}
}

// line is an event with a text of the given length.
func line(n, length int) string {
	return fmt.Sprintf(`{"event":"cmd_output","timestamp":1,"output":"%d %s"}`+"\n", n, bytes.Repeat([]byte("x"), length))
}

// write appends events to the log.
func (w *world) write(n, length int) {
	w.t.Helper()
	var lines bytes.Buffer
	for range n {
		lines.WriteString(line(w.count, length))
		w.count++
	}
	w.writeRaw(lines.String())
}

func (w *world) writeRaw(text string) {
	w.t.Helper()
	f, err := os.OpenFile(w.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(w.t, err)
	_, err = f.WriteString(text)
	require.NoError(w.t, err)
	require.NoError(w.t, f.Close())
}

func (w *world) file() string {
	w.t.Helper()
	raw, err := os.ReadFile(w.path)
	require.NoError(w.t, err)
	return string(raw)
}

// running is an uploader at work.
type running struct {
	*Uploader
	w      *world
	cancel context.CancelFunc
	done   chan error
}

func (w *world) start(u *Uploader) *running {
	ctx, cancel := context.WithCancel(w.ctx())
	r := &running{Uploader: u, w: w, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- u.Run(ctx) }()
	w.t.Cleanup(cancel)
	return r
}

// ended waits for Run's error.
func (r *running) ended() error {
	r.w.t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-r.w.ctx().Done():
		require.FailNow(r.w.t, "the uploader doesn't end")
		return nil
	}
}

// finish ends the log; then the hub must have all of it, and know so.
func (r *running) finish() {
	r.w.t.Helper()
	r.Finish()
	require.NoError(r.w.t, r.ended())
	r.w.requireDelivered()
}

func (w *world) requireDelivered() {
	w.t.Helper()
	file := w.file()
	got := string(w.hub.Log(w.job))
	if got != file { // a diff of megabytes helps nobody
		require.Failf(w.t, "the hub's log differs from the file", "%d and %d bytes, the same up to %d; posts: %+v",
			len(got), len(file), common(got, file), w.hub.LogPosts(w.job))
	}
	assert.Equal(w.t, note{certain: Position{int64(w.count), int64(len(file))}}, w.lastSaved())
}

func common(a, b string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// awaitHeld waits until the hub has n events.
func (w *world) awaitHeld(n int) {
	w.t.Helper()
	_, err := w.hub.WaitJob(w.ctx(), w.job, func(j hubtest.Job) bool { return j.LogEvents >= n })
	require.NoError(w.t, err)
}

// starts are the indices at which the accepted posts began.
func (w *world) starts() []int {
	var out []int
	for _, p := range w.hub.LogPosts(w.job) {
		if p.Status == http.StatusOK {
			out = append(out, p.StartFrom)
		}
	}
	return out
}
