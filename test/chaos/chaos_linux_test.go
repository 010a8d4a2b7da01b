package chaos

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/test/harness"
)

var binaries string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "signalman-chaos-bin-")
	if err == nil {
		err = harness.Build(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binaries = dir
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// number is a setting of the run: a flag, or else an environment variable.
func number(name, variable string, or uint64, usage string) *uint64 {
	if n, err := strconv.ParseUint(os.Getenv(variable), 10, 64); err == nil {
		or = n
	}
	return flag.Uint64(name, or, usage+" ("+variable+")")
}

var (
	jobsFlag  = number("chaos.jobs", "CHAOS_JOBS", 24, "how many jobs to run")
	slotsFlag = number("chaos.slots", "CHAOS_SLOTS", 4, "how many of them side by side")
	seedFlag  = number("chaos.seed", "CHAOS_SEED", 0, "the seed of jobs and faults; 0 draws one")
)

const (
	// shortRun is up to how many jobs a run is a short one: with smaller floods, and trouble for a limited time.
	shortRun     = 50
	shortTrouble = 18 * time.Second
	longTrouble  = time.Hour
	// shortPause and longPause are what lies between the beginnings of two faults, in the mean.
	shortPause, longPause = 500 * time.Millisecond, 900 * time.Millisecond
)

func TestChaos(t *testing.T) {
	jobs, slots, seed := int(*jobsFlag), int(*slotsFlag), *seedFlag
	if seed == 0 {
		seed = rand.Uint64N(1_000_000_000)
	}
	// Beside the test's own log, which is shown at its end.
	fmt.Printf("chaos: seed %d, %d jobs, %d slots; again: CHAOS_SEED=%[1]d CHAOS_JOBS=%[2]d CHAOS_SLOTS=%[3]d\n", seed, jobs, slots)
	t.Logf("seed %d", seed)

	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	image, engine := engineAndImage(t) // before the world, which ends the jobs
	w := newWorld(t, seed, slots, cancel)
	w.engine = engine
	maker := &planner{image: image, rng: random(seed, "jobs"), mark: w.mark, dir: filepath.Join(w.dir, "brought"), flood: 100_000}
	trouble, between := longTrouble, longPause
	if jobs <= shortRun {
		maker.flood, trouble, between = 20_000, shortTrouble, shortPause
	}
	var plans []plan
	for i := range jobs {
		plans = append(plans, maker.plan(i+1, fmt.Sprintf("chaos-%d-%03d", seed, i+1)))
	}

	w.start()
	before, err := w.idle(ctx, 0, 0)
	require.NoError(t, err)
	w.hub.Down() // idle connections are no leak: none of before is counted, nor in the end
	require.NoError(t, w.hub.Up())
	// What the start itself takes (the reconciler asks workers) has to be over: nothing less comes for two seconds.
	for looks := 0; looks < 20; looks++ {
		st, err := w.idle(ctx, 0, 0)
		require.NoError(t, err)
		if st.Goroutines < before.Goroutines || st.OpenFiles < before.OpenFiles {
			before, looks = st, 0
		}
		pause(ctx, 100*time.Millisecond)
	}
	require.NoError(t, w.runAll(ctx, plans, random(seed, "faults"), trouble, between))

	// What is left once all is quiet again.
	w.hub.Down()
	require.NoError(t, w.hub.Up())
	allowance := 2 * slots // a connection of each slot has two goroutines
	after, err := w.idle(ctx, before.Goroutines+allowance, before.OpenFiles+allowance)
	assert.NoError(t, err, "the supervisor leaks")
	assert.NoError(t, w.reconcile(ctx))
	last := w.supervisor()
	require.NoError(t, last.Signal(syscall.SIGTERM))
	code, err := last.Exit(patience)
	require.NoError(t, err)
	assert.Zero(t, code, "the supervisor's exit code")
	w.checkRemains(plans)

	ends := map[string]int{}
	for _, p := range plans {
		end, err := w.checkJob(p)
		if err != nil {
			t.Errorf("job %s: %v", p.id, err)
			continue
		}
		ends[end]++
	}
	assert.Greater(t, ends[whole], jobs/3, "jobs that nothing has cut short: else the run says little")
	assert.Empty(t, w.hub.Agents(), "agents at the hub")
	w.report(plans, ends)
	t.Logf("goroutines %d before, %d after; open files %d before, %d after", before.Goroutines, after.Goroutines, before.OpenFiles, after.OpenFiles)
}

// random gives the numbers for a purpose that follow from a seed.
func random(seed uint64, purpose string) *rand.Rand {
	return rand.New(rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%s %d", purpose, seed))))
}

// runAll runs jobs while things go wrong, for a limited time, until each of them has ended at the hub; then all is mended. When
// two thirds of the jobs have ended the supervisor is killed no more, so that what it piles up shows.
func (w *world) runAll(ctx context.Context, plans []plan, rng *rand.Rand, limit, meanPause time.Duration) error {
	running, end := context.WithCancel(ctx)
	troubled, calm := context.WithTimeout(running, limit)
	var under sync.WaitGroup
	defer under.Wait()
	defer calm()
	defer end()
	for _, p := range plans {
		id, err := w.hub.SubmitJSON(p.payload)
		if err != nil {
			return err
		}
		if id != p.id {
			return fmt.Errorf("the hub has named job %s %s", p.id, id)
		}
		if p.stop {
			under.Go(func() { w.stopJob(running, p) })
		}
	}
	under.Go(func() { w.trouble(troubled, rng, meanPause) })
	// A job may have to wait 25 s for the fate of a lost request, more than once; a slot has several of them.
	most := 2*time.Minute + time.Duration(len(plans)/w.slots+1)*time.Minute/2
	waiting, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("it takes more than %v", most))
	defer cancel()
	for i, p := range plans {
		if i == len(plans)*2/3 {
			w.spared.Store(true)
		}
		if _, err := w.hub.WaitFinished(waiting, p.id); err != nil {
			return fmt.Errorf("%w: %w", context.Cause(waiting), err)
		}
	}
	return nil
}

// stopJob is a user's stop of a job, at a moment that the plan says.
func (w *world) stopJob(ctx context.Context, p plan) {
	if !p.stopQueued {
		_, err := w.hub.WaitJob(ctx, p.id, func(j hubtest.Job) bool { return !j.RunningAt.IsZero() })
		if err != nil || !pause(ctx, p.stopAfter) {
			return
		}
	}
	w.mu.Lock()
	w.stopped[p.id] = true
	w.mu.Unlock()
	if w.hub.StopJob(p.id) {
		w.note("job stopped", "%s", p.id)
	}
}

// checkRemains looks for what is left after the last supervisor.
func (w *world) checkRemains(plans []plan) {
	var ids []string
	for _, p := range plans {
		ids = append(ids, p.id)
	}
	assert.Empty(w.t, w.workers(), "workers that run on")
	processes, err := w.leftProcesses()
	assert.NoError(w.t, err)
	assert.Empty(w.t, processes, "processes that run on")
	files, err := w.leftFiles(ids)
	assert.NoError(w.t, err)
	assert.Empty(w.t, files, "files that are left")
	cgroups, err := w.leftCgroups()
	assert.NoError(w.t, err)
	assert.Empty(w.t, cgroups, "cgroups that are left")
	things, err := w.leftThings(context.Background())
	assert.NoError(w.t, err)
	assert.Empty(w.t, things, "containers, networks and volumes that are left")
	crashes, err := harness.WorkerCrashes(w.state)
	assert.NoError(w.t, err)
	assert.Empty(w.t, crashes, "crashes of workers")
	for i, p := range w.sups {
		assert.Empty(w.t, harness.Crashes(p.Log.String()), "supervisor %d", i+1)
	}
	for i := range w.slots {
		name := "chaos-host"
		if i > 0 {
			name = fmt.Sprintf("%s-%d", name, i+1)
		}
		assert.NoError(w.t, oneResult(w.hub.Syncs(name)))
	}
}

// report prints the run's figures.
func (w *world) report(plans []plan, ends map[string]int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	results := map[string]int{}
	events, bytes, containers := 0, 0, 0
	for _, p := range plans {
		job, _ := w.hub.Job(p.id)
		results[string(job.Result)]++
		if p.containers {
			containers++
		}
		events += job.LogEvents
		bytes += len(w.hub.Log(p.id))
	}
	faults := 0
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(w.count)) {
		faults += w.count[kind]
		text := fmt.Sprintf("%s %d", kind, w.count[kind])
		if hits := w.hits[kind]; hits > 0 {
			text += fmt.Sprintf(" (%d requests)", hits)
		}
		kinds = append(kinds, text)
	}
	w.t.Logf("%d jobs (%d in containers) in %v: %v; %v; %d supervisors; %d events, %.1f MB of log; %d faults: %s",
		len(plans), containers, time.Since(w.began).Round(time.Second), results, ends, len(w.sups), events, float64(bytes)/1e6, faults, strings.Join(kinds, ", "))
}
