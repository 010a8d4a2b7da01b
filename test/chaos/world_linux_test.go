package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/admin"
	"github.com/signalman-ci/signalman/internal/engine"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/process"
	"github.com/signalman-ci/signalman/internal/supervisor"
	"github.com/signalman-ci/signalman/internal/testimage"
	"github.com/signalman-ci/signalman/test/harness"
)

// patience is how long the run waits for what takes no time if all is well, beside a busy machine.
const patience = 90 * time.Second

// world is a host with an agent on it, its hub, and what has been done to both.
type world struct {
	t      *testing.T
	hub    *hubtest.Hub
	began  time.Time
	dir    string // all of the host
	state  string // the state folder
	run    string // the folder of the sockets
	mark   string // an argument of what jobs leave running
	slots  int
	cancel context.CancelCauseFunc // ends a run that has failed
	engine *engine.Engine          // nil where there is none: then no job runs in containers

	// supMu is held by whoever ends or starts the supervisor.
	supMu  sync.Mutex
	spared atomic.Bool // the supervisor is not to be killed any more

	mu      sync.Mutex
	sups    []*harness.Process // all of them, the last one may run
	killed  map[string]bool    // jobs with a worker that was killed
	stopped map[string]bool    // jobs that the hub was asked to stop
	log     []string           // the faults, with their times
	count   map[string]int     // the faults by kind
	hits    map[string]int     // the requests that were hit, by kind of fault
}

func newWorld(t *testing.T, seed uint64, slots int, cancel context.CancelCauseFunc) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "chaos-") // short, for the paths of sockets
	require.NoError(t, err)
	w := &world{
		t: t, hub: hubtest.Start(t, hubtest.Options{}), began: time.Now(), dir: dir, state: filepath.Join(dir, "state"),
		mark: fmt.Sprintf("chaos-mark-%d-%d", os.Getpid(), seed), slots: slots, cancel: cancel,
		killed: map[string]bool{}, stopped: map[string]bool{}, count: map[string]int{}, hits: map[string]int{},
	}
	for _, name := range []string{"home", "tmp", "brought"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	// What jobs print of their files is compared.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "agent.toml"), []byte("[secrets]\nfiles = []\n"), 0o600))
	t.Setenv("TMPDIR", filepath.Join(dir, "tmp")) // as the supervisor has it: the run folder follows from it
	t.Setenv("XDG_RUNTIME_DIR", "")
	w.run, err = supervisor.RunDir(w.state)
	require.NoError(t, err)
	t.Cleanup(func() {
		for _, p := range w.sups {
			p.Kill()
		}
		w.endAll()
		if !t.Failed() {
			_ = os.RemoveAll(dir)
			return
		}
		w.keep()
	})
	return w
}

// endAll ends what a failed run has left running.
func (w *world) endAll() {
	for _, worker := range w.workers() {
		_ = syscall.Kill(worker.pid, syscall.SIGKILL)
	}
	left, _ := w.leftProcesses()
	for pid := range left {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	things, _ := w.leftThings(ctx)
	for _, thing := range things {
		_ = w.engine.RemoveThing(ctx, thing)
	}
}

// engineAndImage gives this machine's engine and an image for it; nil and "" where there is none.
func engineAndImage(t *testing.T) (image string, eng *engine.Engine) {
	t.Run("engine", func(t *testing.T) { eng = testimage.Engine(t) }) // which may skip it
	if eng == nil {
		return "", nil
	}
	eng, err := engine.Connect(t.Context()) // that of the subtest is closed
	require.NoError(t, err)
	t.Cleanup(func() { _ = eng.Close() })
	return testimage.Build(t, eng, true, "VOLUME /data"), eng
}

// leftThings lists what the engine has of the host's jobs.
func (w *world) leftThings(ctx context.Context) ([]engine.Thing, error) {
	id, err := w.instance()
	if err != nil || w.engine == nil {
		return nil, err
	}
	return w.engine.List(ctx, map[string]string{"signalman.instance": id})
}

// reconcile lets the supervisor remove what an engine has made for workers that were killed over it, until nothing is left: its next
// look may be minutes away.
func (w *world) reconcile(ctx context.Context) error {
	for deadline := time.Now().Add(patience); ; {
		left, err := w.leftThings(ctx)
		if err != nil || len(left) == 0 || time.Now().After(deadline) {
			return err
		}
		if _, err := admin.Reconcile(ctx, filepath.Join(w.run, admin.SocketName), false); err != nil {
			return err
		}
	}
}

// keep writes down what a person needs to understand a failure.
func (w *world) keep() {
	w.mu.Lock()
	defer w.mu.Unlock()
	write := func(name, content string) {
		path := filepath.Join(w.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			w.t.Log(err)
		}
	}
	for i, p := range w.sups {
		write(fmt.Sprintf("supervisor-%d.log", i+1), p.Log.String())
	}
	for _, job := range w.hub.Jobs() {
		write("hub/"+job.ID+".jsonl", string(w.hub.Log(job.ID)))
		posts, _ := json.MarshalIndent(w.hub.LogPosts(job.ID), "", " ")
		write("hub/"+job.ID+".posts.json", string(posts))
	}
	write("faults", strings.Join(w.log, "\n")+"\n")
	w.t.Logf("faults:\n%s", strings.Join(w.log, "\n"))
	w.t.Logf("state folder, logs of the supervisors, logs at the hub, faults: kept in %s", w.dir)
}

// fail ends the run with an error; the first one counts.
func (w *world) fail(format string, args ...any) { w.cancel(fmt.Errorf(format, args...)) }

// note tells of a fault.
func (w *world) note(kind, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count[kind]++
	w.log = append(w.log, fmt.Sprintf("%9.3fs %s %s", time.Since(w.began).Seconds(), kind, fmt.Sprintf(format, args...)))
}

// start starts a supervisor. The caller holds supMu.
func (w *world) start() {
	cmd := exec.Command(filepath.Join(binaries, "supervisor"), "start", "--endpoint", w.hub.Endpoint(), "--no-https",
		"--state-dir", w.state, "--name", "chaos-host", "--concurrency", strconv.Itoa(w.slots), "--config-file", filepath.Join(w.dir, "agent.toml"))
	cmd.Dir = w.dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(w.dir, "home"), "TMPDIR=" + filepath.Join(w.dir, "tmp"), "LANG=C.UTF-8",
		"SEMAPHORE_AGENT_TOKEN=" + w.hub.RegistrationToken(), "SEMAPHORE_AGENT_LOG_LEVEL=debug",
		"SEMAPHORE_AGENT_LOG_FILE_PATH=" + filepath.Join(w.dir, "agent.log"),
	}
	p, err := harness.Start(cmd)
	if err != nil {
		w.fail("cannot start a supervisor: %w", err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sups = append(w.sups, p)
}

// kill is kill -9 of the supervisor, which must not have ended by itself. The caller holds supMu.
func (w *world) kill() {
	p := w.supervisor()
	select {
	case <-p.Ended():
		code, _ := p.Exit(patience)
		w.fail("the supervisor has ended by itself, exit code %d", code)
	default:
		p.Kill()
	}
}

func (w *world) supervisor() *harness.Process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sups[len(w.sups)-1]
}

// idle waits until all slots wait for jobs and gives the supervisor's status. It looks again, with connections of its own
// closed, until the numbers of goroutines and files are at most those given; 0 is any.
func (w *world) idle(ctx context.Context, goroutines, files int) (admin.Status, error) {
	deadline := time.Now().Add(patience)
	for {
		st, err := w.status(ctx)
		if err == nil && len(st.Slots) == w.slots && w.allWait(st) && (goroutines == 0 || st.Goroutines <= goroutines && st.OpenFiles <= files) {
			return st, nil
		}
		if time.Now().After(deadline) {
			return st, fmt.Errorf("the supervisor isn't idle, with at most %d goroutines and %d files (0: any): %+v, %w", goroutines, files, st, err)
		}
		if !pause(ctx, 100*time.Millisecond) {
			return st, context.Cause(ctx)
		}
	}
}

func (w *world) status(ctx context.Context) (admin.Status, error) {
	return admin.GetStatus(ctx, filepath.Join(w.run, admin.SocketName))
}

func (w *world) allWait(st admin.Status) bool {
	for _, slot := range st.Slots {
		if slot.State != string(hub.StateWaitingForJobs) {
			return false
		}
	}
	return true
}

// pause waits for a time; false if ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// worker is a worker process, of a job or cleaning up after one.
type worker struct {
	pid int
	job string
	id  process.Identity
}

// workers lists the running worker processes: our binary, with a job's worker.log as its standard error.
func (w *world) workers() []worker {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		w.fail("cannot list processes: %w", err)
		return nil
	}
	var found []worker
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		id, err := process.Identify(pid)
		exe, exeErr := os.Readlink(filepath.Join("/proc", e.Name(), "exe"))
		if err != nil || exeErr != nil || !slices.Contains([]string{"worker-shell", "worker-compose"}, filepath.Base(exe)) ||
			filepath.Dir(exe) != binaries {
			continue
		}
		stderr, err := os.Readlink(filepath.Join("/proc", e.Name(), "fd/2"))
		if err == nil {
			found = append(found, worker{pid: pid, job: filepath.Base(filepath.Dir(stderr)), id: id})
		}
	}
	return found
}

// signal sends a signal to that very process; false if it has ended.
func (w worker) signal(sig syscall.Signal) bool {
	p, err := os.FindProcess(w.pid) // a handle for the process that has the pid now
	if err != nil {
		return false
	}
	defer p.Release()
	return w.id.Alive() && p.Signal(sig) == nil
}

// leftProcesses lists what jobs have left running.
func (w *world) leftProcesses() (map[int]string, error) {
	left, err := harness.Marked(w.mark)
	if err != nil {
		return nil, err
	}
	id, err := w.instance()
	if err != nil { // nothing has begun
		return left, err
	}
	more, err := harness.Marked("SIGNALMAN_JOB=" + id)
	maps.Copy(left, more)
	return left, err
}

// instance is the id of the state folder, which marks all that is ours.
func (w *world) instance() (string, error) {
	raw, err := os.ReadFile(filepath.Join(w.state, "instance-id"))
	id := strings.TrimSpace(string(raw))
	if err == nil && len(id) < 8 {
		err = fmt.Errorf("the state folder's id is %q", id)
	}
	return id, err
}

// leftCgroups lists the cgroups of this state folder.
func (w *world) leftCgroups() (left []string, err error) {
	id, err := w.instance()
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir("/sys/fs/cgroup", func(path string, e fs.DirEntry, err error) error {
		if err != nil { // one that has gone meanwhile, or none at all
			return nil //nolint:nilerr // as it says
		}
		if e.IsDir() && strings.HasPrefix(e.Name(), "signalman-"+id[:8]) {
			left = append(left, path)
		}
		return nil
	})
	return left, err
}

// leftFiles lists what is in the host's folder and the run folder beyond what is to stay.
func (w *world) leftFiles(jobs []string) ([]string, error) {
	var left []string
	for _, root := range []string{w.dir, w.run} {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || path == root && root == w.dir {
				return err
			}
			if !w.mayStay(path, e, jobs) {
				left = append(left, path)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return left, nil
}

func (w *world) mayStay(path string, e fs.DirEntry, jobs []string) bool {
	rel, err := filepath.Rel(w.dir, path)
	if err != nil || strings.HasPrefix(rel, "..") {
		return false
	}
	parts := strings.Split(rel, "/")
	within := func(names ...string) bool { return len(parts) >= len(names) && slices.Equal(parts[:len(names)], names) }
	switch {
	case rel == "agent.log":
		return true
	case within("tmp"):
		// Who isn't root has the run folders here; they stay, but for the one of this state folder.
		return len(parts) == 1 || len(parts) == 2 && e.IsDir() && strings.HasPrefix(parts[1], "signalman-")
	case within("home"), within("brought"), within("state", "homes"):
		return e.IsDir() // of files that jobs have brought, the folders stay
	case within("state", "jobs") && len(parts) >= 4:
		return slices.Contains(jobs, parts[2]) && len(parts) == 4 &&
			slices.Contains([]string{"job.json", "acked.json", "events.jsonl", "events.jsonl.idx", "events.jsonl.sessions", "worker.log"}, parts[3])
	case within("state", "jobs") && len(parts) == 3:
		return slices.Contains(jobs, parts[2])
	default:
		return slices.Contains([]string{"agent.toml", "state", "state/lock", "state/instance-id", "state/admin-token", "state/agents", "state/jobs"}, rel)
	}
}
