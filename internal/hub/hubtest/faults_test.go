package hubtest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

const waiting = `{"state":"waiting-for-jobs"}`

func TestAnswerFault(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	auth := w.register("a", "")
	rule := w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Status: 503, Body: "busy", Times: 2, Skip: 1})
	require.Equal(t, "continue", w.wait(auth))
	for range 2 {
		code, text := w.post("/sync", auth, waiting)
		require.Equal(t, 503, code)
		require.Equal(t, "busy", text)
	}
	require.Equal(t, "continue", w.wait(auth))
	require.Equal(t, 2, rule.Hits())
	require.Len(t, w.hub.Syncs("a"), 2, "not handled")

	w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Status: 200, Body: "<html>"})
	w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Refresh})
	_, text := w.post("/sync", auth, waiting)
	require.Equal(t, "<html>", text)
	w.hub.ClearFaults(hubtest.Sync)
	require.Equal(t, "continue", w.wait(auth))
	code, _ := w.post("/refresh", auth, "")
	require.Equal(t, 500, code, "other rules stay")
	w.hub.ClearFaults()
	code, _ = w.post("/refresh", auth, "")
	require.Equal(t, 422, code)
}

func TestFaultsForOneAgentAndByMatch(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	a, b := w.register("a", ""), w.register("b", "")
	w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Agent: "a"})
	code, _ := w.post("/sync", a, waiting)
	require.Equal(t, 500, code)
	require.Equal(t, "continue", w.wait(b))
	w.hub.ClearFaults()
	w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Match: func(_ *http.Request, body []byte) bool {
		return bytes.Contains(body, []byte("running-job"))
	}})
	require.Equal(t, "continue", w.wait(a))
	code, _ = w.post("/sync", a, `{"state":"running-job","job_id":"x"}`)
	require.Equal(t, 500, code)
}

func TestFaultsThatBreakTheConnection(t *testing.T) {
	for _, c := range []struct {
		kind    hubtest.FaultKind
		handled bool
	}{{hubtest.Drop, false}, {hubtest.DropAnswer, true}, {hubtest.Cut, true}, {hubtest.Reset, false}} {
		w := newWorld(t, hubtest.Options{})
		_, url, auth := w.taken("j")
		w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Logs, Kind: c.kind, Times: 1})
		_, _, err := w.call(deadline(t), "POST", url+"?start_from=0", auth, "a\n")
		require.True(t, isBroken(err), "%v", err)
		require.Equal(t, c.handled, len(w.hub.Log("j")) > 0)
		require.Equal(t, 200, w.push(url, auth, 0, "b\n"))
	}
}

// An answer that is cut has its status and half of its body; a reset shows as one.
func TestHowTheConnectionBreaks(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	auth := w.register("a", "")
	w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Kind: hubtest.Cut, Times: 1})
	code, text, err := w.call(deadline(t), "POST", w.api("/sync"), auth, waiting)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, 200, code)
	require.Regexp(t, `^\{"action":"continue"[^}]*$`, text)
	w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Kind: hubtest.Reset, Times: 1})
	_, _, err = w.call(deadline(t), "POST", w.api("/sync"), auth, waiting)
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.Len(t, w.hub.Syncs("a"), 1, "not handled")
}

func TestAnswerAfterIsHandled(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	_, url, auth := w.taken("j")
	w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Logs, Kind: hubtest.AnswerAfter, Status: 504})
	require.Equal(t, 504, w.push(url, auth, 0, "a\n"))
	require.Equal(t, "a\n", string(w.hub.Log("j")))
}

func TestDelay(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	auth := w.register("a", "")
	w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Kind: hubtest.Delay, For: time.Millisecond, Times: 1})
	require.Equal(t, "continue", w.wait(auth))

	rule := w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Kind: hubtest.Delay, For: time.Hour, Times: 1})
	ctx, leave := context.WithCancel(deadline(t))
	errs := make(chan error, 1)
	go func() {
		_, _, err := w.call(ctx, "POST", w.api("/sync"), auth, waiting)
		errs <- err
	}()
	require.NoError(t, rule.WaitHits(deadline(t), 1))
	leave()
	require.ErrorIs(t, <-errs, context.Canceled)
	require.NoError(t, rule.WaitDone(deadline(t), 1))
	require.Len(t, w.hub.Syncs("a"), 1, "the client left: not handled")

	rule = w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Kind: hubtest.Delay, For: time.Hour})
	go func() {
		if rule.WaitHits(deadline(t), 1) == nil {
			rule.Clear()
		}
	}()
	require.Equal(t, "continue", w.wait(auth), "clearing ends the wait")
}

func TestHang(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	auth := w.register("a", "")
	rule := w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Kind: hubtest.Hang})
	go func() {
		if rule.WaitHits(deadline(t), 1) == nil {
			rule.Clear()
			rule.Clear()
		}
	}()
	_, _, err := w.call(deadline(t), "POST", w.api("/sync"), auth, waiting)
	require.True(t, isBroken(err), "%v", err)
	require.Empty(t, w.hub.Syncs("a"))
}

func TestLateIsHandledThoughTheClientHasGone(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	_, url, auth := w.taken("j")
	require.Equal(t, 200, w.push(url, auth, 0, "a\n"))
	release := make(chan struct{})
	rule := w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Logs, Kind: hubtest.Late, Until: release, Times: 1})
	ctx, leave := context.WithCancel(deadline(t))
	errs := make(chan error, 1)
	go func() {
		_, _, err := w.call(ctx, "POST", url+"?start_from=1", auth, "b\n")
		errs <- err
	}()
	require.NoError(t, rule.WaitHits(deadline(t), 1))
	leave()
	require.ErrorIs(t, <-errs, context.Canceled)
	require.Equal(t, 200, w.push(url, auth, 1, "b\nc\nd\n"))
	rule.Clear()
	close(release)
	require.NoError(t, rule.WaitDone(deadline(t), 1))
	require.Equal(t, "a\nb\n", string(w.hub.Log("j")), "the late post has cut the tail")
}

func TestLateWithStatusAnswersFirst(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	_, url, auth := w.taken("j")
	release := make(chan struct{})
	rule := w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Logs, Kind: hubtest.Late, Status: 503, Body: "request timed out", Until: release, Times: 1})
	require.Equal(t, 503, w.push(url, auth, 0, "a\n"))
	require.Empty(t, w.hub.Log("j"))
	close(release)
	require.NoError(t, rule.WaitDone(deadline(t), 1))
	require.Equal(t, "a\n", string(w.hub.Log("j")))
}

func TestOutage(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	auth, url, logAuth := w.taken("j")
	endpoint := w.hub.Endpoint()
	w.hub.Down()
	w.hub.Down()
	_, _, err := w.call(deadline(t), "POST", w.api("/sync"), auth, waiting)
	require.True(t, isBroken(err), "%v", err)
	_, _, err = w.call(deadline(t), "POST", url+"?start_from=0", logAuth, "a\n")
	require.True(t, isBroken(err), "%v", err)
	require.NoError(t, w.hub.Up())
	require.NoError(t, w.hub.Up())
	require.Equal(t, endpoint, w.hub.Endpoint())
	require.Equal(t, "continue", w.running(auth, "j"))

	w.hub.DownLogs()
	require.Equal(t, "continue", w.running(auth, "j"), "the hub alone is up")
	require.NoError(t, w.hub.UpLogs())
	require.Equal(t, 200, w.push(url, logAuth, 0, "a\n"))
}

func TestDownBreaksRequestsInFlight(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	auth := w.register("a", "")
	rule := w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Kind: hubtest.Hang})
	errs := make(chan error, 1)
	go func() {
		_, _, err := w.call(deadline(t), "POST", w.api("/sync"), auth, waiting)
		errs <- err
	}()
	require.NoError(t, rule.WaitHits(deadline(t), 1))
	w.hub.Down()
	require.True(t, isBroken(<-errs))
}

func TestWaitThatDoesNotComeTrueSaysWhy(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.submit("j")
	_, err := w.hub.WaitFinished(ctx, "j")
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "queued")
	require.ErrorIs(t, w.hub.WaitAgents(ctx, func([]hubtest.Agent) bool { return false }), context.Canceled)
	require.ErrorIs(t, w.hub.WaitRequests(ctx, hubtest.Sync, 1), context.Canceled)
	rule := w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Sync})
	require.True(t, errors.Is(rule.WaitHits(ctx, 1), context.Canceled))
}
