package uploader

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// lateRequest makes the next request to the log service fail with 504 and be carried out only when release is called, which
// returns once that has happened.
func (w *world) lateRequest() (rule *hubtest.FaultRule, release func()) {
	until := make(chan struct{})
	rule = w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Logs, Kind: hubtest.Late, Status: 504, Times: 1, Until: until})
	release = sync.OnceFunc(func() {
		close(until)
		assert.NoError(w.t, rule.WaitDone(w.ctx(), 1))
	})
	w.t.Cleanup(release)
	return rule, release
}

// beforeRequest has f run before the log service handles its request number n, from 0; f and the request are in one order with
// all else, so no clock decides.
func (w *world) beforeRequest(n int, f func()) {
	var mu sync.Mutex
	seen := 0
	w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Logs, Match: func(*http.Request, []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		if seen == n {
			f()
		}
		seen++
		return false
	}})
}

func TestLateRequestBeforeItsRepetition(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{}, nil)
	o := w.options()
	o.LateLimit = time.Second
	rule, release := w.lateRequest()
	w.beforeRequest(0, release) // rules are asked in order: the late one takes the first request itself
	w.write(10, 10)
	up := w.start(New(o))
	require.NoError(t, rule.WaitHits(w.ctx(), 1))
	w.write(10, 10)
	up.finish()
}

// The late request is carried out after its repetition and more events were acknowledged: it cuts them off, and they must
// come again.
func TestLateRequestAfterWhatFollowedIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{}, nil)
	o := w.options()
	o.LateLimit = 10 * time.Second
	_, release := w.lateRequest()
	// 0 is the repetition, 1 brings more events, 2 comes when the time for late requests is over: until just before it the
	// late one may cut the log.
	cut := make(chan int, 1)
	w.beforeRequest(2, func() {
		release()
		job, _ := w.hub.Job(w.job)
		cut <- job.LogEvents
	})
	w.write(10, 10)
	up := w.start(New(o))
	w.awaitHeld(10)
	w.write(10, 10)
	w.awaitHeld(20)
	up.finish()
	require.Len(t, cut, 1, "the log is sent again when the time for late requests is over")
	assert.Equal(t, 10, <-cut, "the late request has cut the log")
	assert.Equal(t, []int{0, 0, 0, 0}, w.starts())
}

// While a late request threatens, all batches begin at one place; a batch that is full there can't grow, and what comes
// behind waits.
func TestFullBatchWhilePinned(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{}, nil)
	o := w.options()
	o.LateLimit = 3 * time.Second
	_, release := w.lateRequest()
	w.beforeRequest(1, release)
	w.write(5000, 500) // beyond a batch
	w.start(New(o)).finish()
}

// countingContext counts how often it is asked whether it has ended, which the uploader does in each turn of its loop.
type countingContext struct {
	context.Context
	asked atomic.Int64
}

func (c *countingContext) Err() error {
	c.asked.Add(1)
	return c.Context.Err()
}

// An event too large to follow in the batch at the pin is something to wait for the pin's end with, not something to spin on.
func TestBigEventBehindAPinnedBatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{}, nil)
	o := w.options()
	o.LateLimit, o.Lost.To = 24*time.Hour, 2
	w.write(2, 10)
	u := New(o)
	u.size = minBytes
	inner, cancel := context.WithCancel(w.ctx())
	defer cancel()
	ctx := &countingContext{Context: inner}
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	w.awaitHeld(2)
	w.write(1, 2*minBytes)
	require.Never(t, func() bool { return ctx.asked.Load() > 100 }, time.Second, 10*time.Millisecond)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	assert.Equal(t, []int{0}, w.starts())
}

// A supervisor that died in mid-request leaves word of it, and the next one takes it for one that may come late.
func TestResumesAfterALostRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{}, nil)
	first := w.options()
	first.LateLimit = 24 * time.Hour
	up := w.start(New(first))
	w.write(10, 10)
	w.awaitHeld(10)
	known := note{certain: Position{10, int64(len(w.file()))}}
	require.Eventually(t, func() bool { return w.lastSaved() == known }, patience, time.Millisecond)
	rule, release := w.lateRequest()
	w.write(5, 10)
	require.NoError(t, rule.WaitHits(w.ctx(), 1))
	up.cancel()
	require.ErrorIs(t, up.ended(), context.Canceled)
	left := w.lastSaved()
	require.Equal(t, note{certain: known.certain, lostTo: 15}, left)

	second := w.options()
	second.From, second.Lost.To, second.LateLimit = left.certain, left.lostTo, 10*time.Second
	before := w.hub.Requests(hubtest.Logs)
	cut := make(chan int, 1)
	w.beforeRequest(2, func() {
		release()
		job, _ := w.hub.Job(w.job)
		cut <- job.LogEvents
	})
	up = w.start(New(second))
	w.awaitHeld(15)
	w.write(5, 10)
	w.awaitHeld(20)
	up.finish()
	require.Len(t, cut, 1, "the log is sent again when the time for late requests is over")
	assert.Equal(t, 15, <-cut)
	assert.Equal(t, 3, w.hub.Requests(hubtest.Logs)-before, "what came after the lost request is sent again once")
}

// A supervisor that is started again and again doesn't begin the wait anew each time, and none waits when it is over.
func TestTheWaitForALostRequestEndsOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{}, nil)
	w.write(5, 10)
	lost := Lost{To: 5}
	for i := range 3 {
		o := w.options()
		o.Lost, o.LateLimit = lost, 24*time.Hour
		up := w.start(New(o))
		require.NoError(t, w.hub.WaitRequests(w.ctx(), hubtest.Logs, i+1))
		require.Eventually(t, func() bool { return w.lastSaved() == note{lostTo: 5, until: true} }, patience, time.Millisecond)
		up.cancel()
		require.ErrorIs(t, up.ended(), context.Canceled)
		noted := w.lastLost()
		if i > 0 {
			require.Equal(t, lost, noted)
		}
		lost = noted
	}
	require.WithinRange(t, lost.Until, time.Now().Add(23*time.Hour), time.Now().Add(24*time.Hour))

	o := w.options()
	o.Lost, o.LateLimit = Lost{To: 5, Until: time.Now().Add(-time.Hour)}, 24*time.Hour
	w.start(New(o)).finish()
	assert.Equal(t, 4, w.hub.Requests(hubtest.Logs))
}

// Nothing came after the lost request: then nothing has to be sent again.
func TestNoNeedlessRepetition(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{}, nil)
	w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Logs, Kind: hubtest.DropAnswer, Times: 1})
	o := w.options()
	o.LateLimit = time.Second
	w.write(10, 10)
	w.start(New(o)).finish()
	assert.Equal(t, []int{0, 0}, w.starts())
}

// narrow is a connection that carries no more than so many bytes in a row until something comes back, as if the rest took
// longer than the service reads.
type narrow struct {
	net.Conn
	limit  int
	closed chan struct{}
	close  func()

	mu   sync.Mutex
	sent int
}

func narrowTransport(limit int) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		n := &narrow{Conn: conn, limit: limit, closed: make(chan struct{})}
		n.close = sync.OnceFunc(func() { close(n.closed) })
		return n, nil
	}}
}

func (n *narrow) Write(p []byte) (int, error) {
	n.mu.Lock()
	n.sent += len(p)
	over := n.sent > n.limit
	n.mu.Unlock()
	if over {
		<-n.closed
		return 0, net.ErrClosed
	}
	return n.Conn.Write(p)
}

func (n *narrow) Read(p []byte) (int, error) {
	got, err := n.Conn.Read(p)
	n.mu.Lock()
	n.sent = 0
	n.mu.Unlock()
	return got, err
}

func (n *narrow) Close() error {
	n.close()
	return n.Conn.Close()
}

func TestSlowUplink(t *testing.T) {
	t.Parallel()
	const limit = 300 << 10
	w := newWorld(t, hubtest.Options{BodyReadTimeout: time.Second}, narrowTransport(limit))
	w.write(3000, 1000)
	u := New(w.options())
	w.start(u).finish()
	posts := w.hub.LogPosts(w.job)
	require.Greater(t, len(posts), 10)
	largest := 0
	for _, p := range posts {
		assert.LessOrEqual(t, p.Bytes, limit)
		largest = max(largest, p.Bytes)
	}
	assert.Greater(t, w.hub.Requests(hubtest.Logs), len(posts), "some requests were not read to their end")
	assert.Less(t, posts[0].Bytes, largest, "batches grow again")
}
