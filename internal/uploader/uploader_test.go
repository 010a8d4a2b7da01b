package uploader

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

func TestGrowingLogArrivesOnceAndInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{}, nil)
	up := w.start(New(w.options())) // the file isn't there yet
	for i := range 40 {
		w.write(i*20, i*3)
		if i%10 == 0 {
			w.awaitHeld(w.count)
		}
	}
	half := line(w.count, 5)
	w.writeRaw(half[:9]) // an event in the making is left alone
	w.awaitHeld(w.count)
	w.writeRaw(half[9:])
	w.count++
	up.finish()
	for _, p := range w.hub.LogPosts(w.job) {
		assert.Equal(t, p.Held, p.StartFrom, "nothing is sent twice without need")
		assert.Positive(t, p.Events)
	}
}

func TestBigBacklogTravelsInFullBatches(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{}, nil)
	w.write(9000, 300)
	up := w.start(New(w.options()))
	up.finish()
	posts := w.hub.LogPosts(w.job)
	require.Len(t, posts, 5)
	for _, p := range posts[:4] {
		assert.Equal(t, maxEvents, p.Events)
	}
}

func TestBatchesAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{}, nil)
	w.write(30, 100<<10)
	w.write(1, 2<<20) // alone it is larger than a batch
	w.start(New(w.options())).finish()
	for _, p := range w.hub.LogPosts(w.job) {
		if p.Events > 1 {
			assert.LessOrEqual(t, p.Bytes, maxBytes)
		}
	}
}

func TestNothingToShip(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{}, nil)
	up := w.start(New(w.options()))
	up.Finish()
	require.NoError(t, up.ended())
	assert.Zero(t, w.hub.Requests(hubtest.Logs))
}

func TestStartsFromAPosition(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{}, nil)
	w.write(7, 10)
	require.NoError(t, w.Push(w.ctx(), w.token, 0, []byte(w.file())))
	o := w.options()
	o.From = Position{7, int64(len(w.file()))}
	w.write(5, 10)
	w.start(New(o)).finish()
	assert.Equal(t, []int{0, 7}, w.starts())
}

// The pace bounds the requests for a trickle; the first line, and the log's end, don't wait for it.
func TestTrickleIsSentInFewRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{}, nil)
	u := New(w.options())
	u.pace, u.first = 24*time.Hour, 24*time.Hour
	up := w.start(u)
	w.write(1, 10)
	w.awaitHeld(1)
	for range 50 {
		w.write(1, 10)
	}
	up.finish()
	assert.Equal(t, []int{0, 1}, w.starts())
}

func TestExpiredTokenIsRefreshed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{}, nil)
	o := w.options()
	o.Token = "" // as after a restart
	up := w.start(New(o))
	w.write(3, 10)
	w.awaitHeld(3)
	w.hub.ExpireLogTokens(w.job)
	w.write(3, 10)
	w.awaitHeld(6)
	up.finish()
	assert.Equal(t, 2, w.hub.Requests(hubtest.Refresh))
	assert.Equal(t, []int{0, 3}, w.starts())
}

func TestRefreshThatFailsIsTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{}, nil)
	w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Refresh, Kind: hubtest.Answer, Status: 500, Times: 2})
	w.hub.ExpireLogTokens(w.job)
	w.write(3, 10)
	w.start(New(w.options())).finish()
	assert.Equal(t, 3, w.hub.Requests(hubtest.Refresh))
}

func TestTooManyEventsAreSentInSmallerBatches(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{MaxEvents: 30}, nil)
	w.write(200, 10)
	w.start(New(w.options())).finish()
	refused := 0
	for _, p := range w.hub.LogPosts(w.job) {
		if p.Status == http.StatusRequestEntityTooLarge {
			refused++
		}
	}
	assert.GreaterOrEqual(t, refused, 3, "200, 100 and 50 events are too many")
}

// One event a request is the least; from there batches must grow again.
func TestBatchesGrowAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{}, nil)
	w.write(400, 10)
	u := New(w.options())
	u.events = 1
	w.start(u).finish()
	assert.Less(t, len(w.hub.LogPosts(w.job)), 60)
}

func TestFullLogEndsTheShipping(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{MaxLogSize: 2000}, nil)
	up := w.start(New(w.options()))
	w.write(20, 100)
	w.awaitHeld(20)
	w.write(5, 100)
	require.ErrorIs(t, up.ended(), ErrFull)
	assert.EqualValues(t, 20, w.lastSaved().certain.Index)
	posts := w.hub.LogPosts(w.job)
	assert.Equal(t, http.StatusUnprocessableEntity, posts[len(posts)-1].Status)
	assert.Len(t, posts, 2, "422 is asked for once")
}

func TestFaultsOfTheLogService(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]hubtest.Fault{
		"500":               {Kind: hubtest.Answer, Status: 500},
		"400":               {Kind: hubtest.Answer, Status: 400},
		"404":               {Kind: hubtest.Answer, Status: 404},
		"503":               {Kind: hubtest.Answer, Status: 503},
		"garbage with 502":  {Kind: hubtest.Answer, Status: 502, Body: "<html>\x00\xff"},
		"handled, then 500": {Kind: hubtest.AnswerAfter, Status: 500},
		"handled, then 504": {Kind: hubtest.AnswerAfter, Status: 504},
		"dropped":           {Kind: hubtest.Drop},
		"answer dropped":    {Kind: hubtest.DropAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, hubtest.Options{}, nil)
			fault.Endpoint, fault.Times, fault.Skip = hubtest.Logs, 2, 1
			rule := w.hub.AddFault(fault)
			up := w.start(New(w.options()))
			w.write(5, 10)
			w.awaitHeld(5)
			w.write(5, 10)
			require.NoError(t, rule.WaitHits(w.ctx(), 2))
			w.write(5, 10)
			up.finish()
			assert.Equal(t, 2, rule.Hits())
		})
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{}, nil)
	o := w.options()
	o.LateLimit = 24 * time.Hour // a needless pin would keep the test for ever
	refused := make(chan struct{}, 100)
	o.Service = serviceFunc{w, func(err error) {
		if err != nil {
			select {
			case refused <- struct{}{}:
			default:
			}
		}
	}}
	up := w.start(New(o))
	w.write(10, 10)
	w.awaitHeld(10)
	// Let the answer arrive, or the outage would be of an unknown outcome.
	require.Eventually(t, func() bool { return w.lastSaved() == note{certain: Position{10, int64(len(w.file()))}} }, patience, time.Millisecond)
	w.hub.DownLogs()
	w.write(10, 10)
	for range 2 {
		select {
		case <-refused:
		case <-w.ctx().Done():
			require.FailNow(t, "no request was refused")
		}
	}
	w.write(3000, 10)
	require.NoError(t, w.hub.UpLogs())
	up.finish()
}

// serviceFunc tells of the outcome of each push.
type serviceFunc struct {
	*world
	pushed func(error)
}

func (s serviceFunc) Push(ctx context.Context, token string, from int64, body []byte) error {
	err := s.world.Push(ctx, token, from, body)
	s.pushed(err)
	return err
}

func TestContextEndsTheShipping(t *testing.T) {
	t.Parallel()
	t.Run("while waiting for events", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, hubtest.Options{}, nil)
		up := w.start(New(w.options()))
		w.write(1, 10)
		w.awaitHeld(1)
		up.cancel()
		require.ErrorIs(t, up.ended(), context.Canceled)
	})
	t.Run("in a request", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, hubtest.Options{}, nil)
		rule := w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Logs, Kind: hubtest.Hang})
		up := w.start(New(w.options()))
		w.write(4, 10)
		require.NoError(t, rule.WaitHits(w.ctx(), 1))
		up.cancel()
		require.ErrorIs(t, up.ended(), context.Canceled)
		assert.Equal(t, note{lostTo: 4}, w.lastSaved(), "the next uploader has to know of the request")
	})
	t.Run("between tries", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, hubtest.Options{}, nil)
		rule := w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Logs, Kind: hubtest.Answer})
		up := w.start(New(w.options()))
		w.write(4, 10)
		require.NoError(t, rule.WaitHits(w.ctx(), 2))
		up.cancel()
		require.ErrorIs(t, up.ended(), context.Canceled)
	})
	t.Run("while pinned", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, hubtest.Options{}, nil)
		w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Logs, Kind: hubtest.DropAnswer, Times: 1})
		o := w.options()
		o.LateLimit = 24 * time.Hour
		up := w.start(New(o))
		w.write(4, 10)
		require.NoError(t, w.hub.WaitRequests(w.ctx(), hubtest.Logs, 2))
		up.Finish() // which waits for the pin
		up.cancel()
		require.ErrorIs(t, up.ended(), context.Canceled)
		assert.Equal(t, int64(4), w.lastSaved().lostTo)
	})
}

// A power loss can leave the file shorter than what the hub has: the closing events are numbered on from there, whatever their length.
func TestLogCutByAPowerLoss(t *testing.T) {
	t.Parallel()
	for name, closing := range map[string]int{"short ending": 5, "long ending": 3000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, hubtest.Options{}, nil)
			w.write(10, 50)
			whole := w.file()
			require.NoError(t, w.Push(w.ctx(), w.token, 0, []byte(whole)))
			o := w.options()
			o.From = Position{10, int64(len(whole))}
			lines := strings.SplitAfter(whole, "\n")
			require.NoError(t, os.Truncate(w.path, int64(len(lines[0]+lines[1]+lines[2])+20)))
			u := New(o)
			// The writer that closes the log takes the torn line away first.
			require.NoError(t, os.Truncate(w.path, int64(len(lines[0]+lines[1]+lines[2]))))
			end := line(98, closing) + line(99, closing)
			w.writeRaw(end)
			up := w.start(u)
			up.Finish()
			require.NoError(t, up.ended())
			assert.Equal(t, whole+end, string(w.hub.Log(w.job)))
		})
	}
}

// A log that can't be read for a time is shipped when it can.
func TestUnreadableLogIsTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{}, nil)
	require.NoError(t, os.Mkdir(w.path, 0o700))
	o := w.options()
	said := make(chan struct{}, 1)
	o.Logger = hclog.New(&hclog.LoggerOptions{Output: writerFunc(func(p []byte) (int, error) {
		select {
		case said <- struct{}{}:
		default:
		}
		return len(p), nil
	})})
	up := w.start(New(o))
	up.Finish()
	select {
	case <-said: // it has failed once
	case <-w.ctx().Done():
		t.Fatal("the uploader says nothing of a log that it can't read")
	}
	require.NoError(t, os.Remove(w.path))
	w.write(5, 10)
	require.NoError(t, up.ended())
	assert.Equal(t, w.file(), string(w.hub.Log(w.job)))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestNotesThatCannotBeSavedDoNotStopTheShipping(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{}, nil)
	o := w.options()
	o.Save = func(Position, Lost) error { return errors.New("disk full") }
	w.write(5, 10)
	up := w.start(New(o))
	up.Finish()
	require.NoError(t, up.ended())
	assert.Equal(t, w.file(), string(w.hub.Log(w.job)))
}

// What can't be noted, on a full disk say, is shipped all the same, and told once.
func TestLogIsShippedThoughNothingCanBeNoted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hubtest.Options{}, nil)
	w.write(9000, 300)
	var log bytes.Buffer
	o := w.options()
	o.Logger = hclog.New(&hclog.LoggerOptions{Output: &log})
	var saves int
	o.Save = func(p Position, lost Lost) error {
		saves++
		return errors.Join(w.save(p, lost), errors.New("no space left on device")) // kept for the test's own sake
	}
	w.start(New(o)).finish()
	assert.Greater(t, saves, 1)
	assert.Equal(t, 1, strings.Count(log.String(), "cannot note how much of the log the hub has"), log.String())
}

// watcher is an observer that keeps what it hears.
type watcher struct {
	mu      sync.Mutex
	oldest  []int64 // seconds
	again   int
	failed  int
	shipped Amount
}

func (w *watcher) Sending(oldest time.Time, again bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.oldest = append(w.oldest, oldest.Unix())
	if again {
		w.again++
	}
}

func (w *watcher) Sent(err error, shipped Amount) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failed++
	}
	w.shipped.Events += shipped.Events
	w.shipped.Bytes += shipped.Bytes
}

// Each event is told once, also where requests are lost and what came after them is sent again.
func TestObserverHearsOfEachEventOnce(t *testing.T) {
	w := newWorld(t, hubtest.Options{}, nil)
	w.write(10, 20)
	fault := w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Logs, Kind: hubtest.DropAnswer, Times: 2})
	o, heard := w.options(), &watcher{}
	o.LateLimit, o.Observer = 300*time.Millisecond, heard
	r := w.start(New(o))
	require.NoError(t, fault.WaitHits(w.ctx(), 2))
	w.write(2500, 20)
	r.finish()
	w.requireDelivered()
	assert.Equal(t, Amount{Events: 2510, Bytes: int64(len(w.file()))}, heard.shipped)
	assert.Equal(t, 2, heard.failed)
	assert.Equal(t, 2, heard.again)
	for _, at := range heard.oldest {
		assert.Equal(t, int64(1), at, "the events' own time")
	}
}

// What another uploader has shipped isn't told.
func TestObserverOfTheRest(t *testing.T) {
	w := newWorld(t, hubtest.Options{}, nil)
	w.write(10, 20)
	w.start(New(w.options())).finish()
	before := len(w.file())
	w.write(5, 20)
	o, heard := w.options(), &watcher{}
	o.From, o.Observer = Position{Index: 10, Offset: int64(before)}, heard
	w.start(New(o)).finish()
	w.requireDelivered()
	assert.Equal(t, Amount{Events: 5, Bytes: int64(len(w.file()) - before)}, heard.shipped)
	assert.Zero(t, heard.again)
}
