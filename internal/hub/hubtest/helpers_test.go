package hubtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a hub and a bare HTTP client to poke it with.
type world struct {
	t     *testing.T
	hub   *hubtest.Hub
	http  *http.Client
	clock *clock
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// newWorld starts a hub with a clock that stands still.
func newWorld(t *testing.T, o hubtest.Options) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{now: time.Unix(1_800_000_000, 0)}}
	o.Now = w.clock.Now
	w.hub = hubtest.Start(t, o)
	w.http = newHTTPClient(t)
	return w
}

func newHTTPClient(t *testing.T) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// call makes a request; a broken connection is an error.
func (w *world) call(ctx context.Context, method, url, auth, body string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	resp, err := w.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

func (w *world) api(path string) string {
	return "http://" + w.hub.Endpoint() + "/api/v1/self_hosted_agents" + path
}

func (w *world) post(path, auth, body string) (int, string) {
	w.t.Helper()
	code, text, err := w.call(deadline(w.t), "POST", w.api(path), auth, body)
	require.NoError(w.t, err)
	return code, text
}

// register registers an agent and returns its Authorization header.
func (w *world) register(name, more string) string {
	w.t.Helper()
	code, text := w.post("/register", "Token "+w.hub.RegistrationToken(), fmt.Sprintf(`{"name":%q%s}`, name, more))
	require.Equal(w.t, 201, code, text)
	var out struct{ Name, Token string }
	require.NoError(w.t, json.Unmarshal([]byte(text), &out))
	require.NotEmpty(w.t, out.Token)
	return "Token " + out.Token
}

// sync returns the answer as "action[ job id][ reason]".
func (w *world) sync(auth, state, jobID, more string) string {
	w.t.Helper()
	code, text := w.post("/sync", auth, fmt.Sprintf(`{"state":%q,"job_id":%q%s}`, state, jobID, more))
	require.Equal(w.t, 200, code, text)
	var out struct {
		Action         string `json:"action"`
		JobID          string `json:"job_id"`
		ShutdownReason string `json:"shutdown_reason"`
	}
	require.NoError(w.t, json.Unmarshal([]byte(text), &out))
	return strings.Join(strings.Fields(out.Action+" "+out.JobID+" "+out.ShutdownReason), " ")
}

func (w *world) wait(auth string) string {
	w.t.Helper()
	return w.sync(auth, "waiting-for-jobs", "", "")
}
func (w *world) running(auth, job string) string {
	w.t.Helper()
	return w.sync(auth, "running-job", job, "")
}
func (w *world) finish(auth, job, result string) string {
	w.t.Helper()
	return w.sync(auth, "finished-job", job, fmt.Sprintf(`,"job_result":%q`, result))
}

// submit queues a job with this id.
func (w *world) submit(id string) string {
	w.t.Helper()
	got, err := w.hub.Submit(hubtest.Request{ID: id, Commands: []string{"true"}})
	require.NoError(w.t, err)
	return got
}

// payload fetches a job's request.
func (w *world) payload(auth, id string) (int, map[string]any) {
	w.t.Helper()
	code, text, err := w.call(deadline(w.t), "GET", w.api("/jobs/"+id), auth, "")
	require.NoError(w.t, err)
	var out map[string]any
	if code == 200 {
		require.NoError(w.t, json.Unmarshal([]byte(text), &out))
	}
	return code, out
}

// taken has a new agent take a job and returns its header, the log's URL and
// Authorization header.
func (w *world) taken(job string) (auth, logURL, logAuth string) {
	w.t.Helper()
	auth = w.register("agent-of-"+job, "")
	w.submit(job)
	require.Equal(w.t, "run-job "+job, w.wait(auth))
	code, payload := w.payload(auth, job)
	require.Equal(w.t, 200, code)
	require.Equal(w.t, "continue", w.running(auth, job))
	logger := payload["logger"].(map[string]any)
	return auth, logger["url"].(string), "Bearer " + logger["token"].(string)
}

func (w *world) push(url, auth string, from int, body string) int {
	w.t.Helper()
	code, _, err := w.call(deadline(w.t), "POST", fmt.Sprintf("%s?start_from=%d", url, from), auth, body)
	require.NoError(w.t, err)
	return code
}

// isBroken tells whether a call ended without an answer, but not by its time-out.
func isBroken(err error) bool {
	return err != nil && !errors.Is(err, context.DeadlineExceeded)
}

func (w *world) job(id string) hubtest.Job {
	w.t.Helper()
	j, ok := w.hub.Job(id)
	require.True(w.t, ok)
	return j
}
