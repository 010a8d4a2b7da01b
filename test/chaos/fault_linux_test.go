package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/signalman-ci/signalman/internal/admin"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// fault is one thing that goes wrong. Its numbers are drawn whatever it is, so that the faults of a seed come in the same order
// with the same numbers, however each of them goes.
type fault struct {
	after  time.Duration // since the one before
	length time.Duration // how long it lasts, up to 6 s, mostly less
	pick   int           // chooses among what there is
	kind   faultKind
}

type faultKind struct {
	name   string
	weight int
	do     func(w *world, ctx context.Context, f fault)
}

// faultKinds are all that can go wrong.
func faultKinds() []faultKind {
	kinds := []faultKind{
		{"supervisor killed", 4, (*world).killSupervisor},
		{"supervisor upgraded", 3, (*world).upgradeSupervisor},
		{"worker killed", 2, (*world).killWorker},
		{"worker frozen", 3, (*world).freezeWorker},
		{"supervisor and worker killed", 1, (*world).killBoth},
		{"hub down", 2, outage((*hubtest.Hub).DownHub, (*hubtest.Hub).UpHub)},
		{"log service down", 2, outage((*hubtest.Hub).DownLogs, (*hubtest.Hub).UpLogs)},
		{"all down", 2, outage((*hubtest.Hub).Down, (*hubtest.Hub).Up)},
		{"log tokens expired", 2, (*world).expireTokens},
	}
	for _, k := range []struct {
		name   string
		weight int
		fault  hubtest.Fault
	}{
		{"error answered", 4, hubtest.Fault{Kind: hubtest.Answer}},
		{"nonsense answered", 2, hubtest.Fault{Kind: hubtest.Answer, Status: http.StatusOK}},
		{"error answered to what was done", 1, hubtest.Fault{Kind: hubtest.AnswerAfter, Status: http.StatusBadGateway}},
		{"slow", 3, hubtest.Fault{Kind: hubtest.Delay}},
		{"hanging", 1, hubtest.Fault{Kind: hubtest.Hang}},
		{"connection closed", 1, hubtest.Fault{Kind: hubtest.Drop}},
		{"connection reset", 1, hubtest.Fault{Kind: hubtest.Reset}},
		{"answer lost", 1, hubtest.Fault{Kind: hubtest.DropAnswer}},
		{"answer cut", 2, hubtest.Fault{Kind: hubtest.Cut}},
		{"handled late", 1, hubtest.Fault{Kind: hubtest.Late}},
	} {
		kinds = append(kinds, faultKind{k.name, k.weight, func(w *world, ctx context.Context, f fault) { w.misbehave(ctx, f, k.fault) }})
	}
	return kinds
}

// draw draws the next fault.
func draw(rng *rand.Rand, kinds []faultKind, meanPause time.Duration) fault {
	f := fault{
		after:  time.Duration(rng.Int64N(2 * int64(meanPause))),
		length: time.Duration(rng.Int64N(int64(2 * time.Second))),
		pick:   rng.IntN(1 << 30),
	}
	if rng.IntN(4) == 0 {
		f.length *= 3
	}
	sum := 0
	for _, k := range kinds {
		sum += k.weight
	}
	at := rng.IntN(sum)
	for _, k := range kinds {
		if at -= k.weight; at < 0 {
			f.kind = k
			break
		}
	}
	return f
}

// trouble does one fault after another, several at a time, until ctx ends; then it mends all of them.
func (w *world) trouble(ctx context.Context, rng *rand.Rand, meanPause time.Duration) {
	kinds := faultKinds()
	var under sync.WaitGroup
	for {
		f := draw(rng, kinds, meanPause)
		if !pause(ctx, f.after) {
			break
		}
		under.Go(func() { f.kind.do(w, ctx, f) })
	}
	under.Wait()
}

// killSupervisor kills the supervisor and starts the next one, every other time at once.
func (w *world) killSupervisor(ctx context.Context, f fault) {
	w.replaceSupervisor(ctx, f, func() {})
}

// killBoth kills the supervisor, and a worker while it is gone.
func (w *world) killBoth(ctx context.Context, f fault) {
	w.replaceSupervisor(ctx, f, func() { w.killOne(f) })
}

func (w *world) replaceSupervisor(ctx context.Context, f fault, meanwhile func()) {
	if w.spared.Load() || !w.supMu.TryLock() { // somebody does it already
		return
	}
	defer w.supMu.Unlock()
	if f.pick%2 == 0 {
		f.length = 0
	}
	w.note(f.kind.name, "for %v", f.length.Round(time.Millisecond))
	w.kill()
	meanwhile()
	pause(ctx, f.length)
	w.start()
}

// upgradeSupervisor lets the supervisor replace itself in place by the same binary. It may be killed over it.
func (w *world) upgradeSupervisor(ctx context.Context, f fault) {
	if w.spared.Load() { // what it piles up would be gone
		return
	}
	if _, err := admin.Upgrade(ctx, filepath.Join(w.run, admin.SocketName)); err == nil { // else one is starting, or being upgraded
		w.note(f.kind.name, "")
	}
}

func (w *world) killWorker(_ context.Context, f fault) {
	if job := w.killOne(f); job != "" {
		w.note(f.kind.name, "%s", job)
	}
}

// killOne kills a worker and tells whose it was; "" if there was none.
func (w *world) killOne(f fault) (job string) {
	workers := w.workers()
	if len(workers) == 0 {
		return ""
	}
	victim := workers[f.pick%len(workers)]
	w.mu.Lock() // before its job can end of it
	known := w.killed[victim.job]
	w.killed[victim.job] = true
	w.mu.Unlock()
	if victim.signal(syscall.SIGKILL) {
		return victim.job
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.killed[victim.job] = known
	return ""
}

func (w *world) freezeWorker(ctx context.Context, f fault) {
	workers := w.workers()
	if len(workers) == 0 {
		return
	}
	victim := workers[f.pick%len(workers)]
	if !victim.signal(syscall.SIGSTOP) {
		return
	}
	w.note(f.kind.name, "%s for %v", victim.job, f.length.Round(time.Millisecond))
	pause(ctx, f.length)
	victim.signal(syscall.SIGCONT)
}

func outage(down func(*hubtest.Hub), up func(*hubtest.Hub) error) func(*world, context.Context, fault) {
	return func(w *world, ctx context.Context, f fault) {
		w.note(f.kind.name, "for %v", f.length.Round(time.Millisecond))
		down(w.hub)
		pause(ctx, f.length)
		if err := up(w.hub); err != nil {
			w.fail("cannot end an outage: %w", err)
		}
	}
}

func (w *world) expireTokens(_ context.Context, f fault) {
	if workers := w.workers(); len(workers) > 0 {
		job := workers[f.pick%len(workers)].job
		w.note(f.kind.name, "%s", job)
		w.hub.ExpireLogTokens(job)
	}
}

// misbehave lets hub or log service treat a few requests in a wrong way.
func (w *world) misbehave(ctx context.Context, f fault, rule hubtest.Fault) {
	rule.Endpoint = []hubtest.Endpoint{
		hubtest.Sync, hubtest.Sync, hubtest.Sync, hubtest.Sync, hubtest.Logs, hubtest.Logs, hubtest.Logs, hubtest.GetJob, hubtest.Refresh,
	}[f.pick%9]
	n := f.pick / 9
	rule.Times = 1 + n%3
	n /= 3
	switch rule.Kind {
	case hubtest.Answer:
		if rule.Status == http.StatusOK {
			rule.Body = []string{"<html><body>Just a moment</body></html>", "null", `{"action":`, "", "[]", `{"action":"dance"}`, "\x00\xff", strings.Repeat("x", 1<<16)}[n%8]
			if rule.Endpoint == hubtest.Logs { // 200 is 200 there
				rule.Endpoint = hubtest.Sync
			}
			break
		}
		statuses := map[hubtest.Endpoint][]int{
			hubtest.Sync:    {500, 502, 503, 504, 429, 404},
			hubtest.Logs:    {500, 502, 503, 504, 429, 400, 401, 404, 413},
			hubtest.GetJob:  {500, 502, 503, 504, 429, 404},
			hubtest.Refresh: {500, 502, 503, 504, 429, 404},
		}[rule.Endpoint]
		rule.Status = statuses[n%len(statuses)]
	case hubtest.Delay:
		rule.For = f.length
	case hubtest.Late: // only the log service is known to do so
		rule.Endpoint, rule.For, rule.Status = hubtest.Logs, f.length, http.StatusServiceUnavailable
	}
	in := w.hub.AddFault(rule)
	pause(ctx, f.length)
	in.Clear()
	if hits := in.Hits(); hits > 0 {
		w.note(f.kind.name, "%s, %d requests%s, in the last %v", rule.Endpoint, hits, with(rule), f.length.Round(time.Millisecond))
		w.mu.Lock()
		w.hits[f.kind.name] += hits
		w.mu.Unlock()
	}
}

func with(rule hubtest.Fault) string {
	switch {
	case rule.Body != "":
		return fmt.Sprintf(", %.20q", rule.Body)
	case rule.Status != 0:
		return fmt.Sprintf(", %d", rule.Status)
	default:
		return ""
	}
}
