//go:build unix

package job

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/shared/protocol"
)

// observer keeps what it hears.
type observer struct {
	mu      sync.Mutex
	workers []string
	started []time.Duration
	faults  []Fault
	refused []string
}

func (o *observer) WorkerStarted(executor string, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.workers = append(o.workers, executor)
}

func (o *observer) JobStarted(_ string, waited time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.started = append(o.started, waited)
}

func (o *observer) PluginRefused(reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.refused = append(o.refused, reason)
}

func (o *observer) JobFault(f Fault) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.faults = append(o.faults, f)
}

func observed(t *testing.T) (*world, *observer) {
	w, o := newWorld(t), &observer{}
	w.settings.Observer = o
	return w, o
}

func TestObserverOfJobs(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"true", "false"} {
		w, o := observed(t)
		require.NoError(t, w.await(w.run(w.ctx(), w.request(command), nil)).err)
		assert.Equal(t, []string{"shell"}, o.workers)
		require.Len(t, o.started, 1)
		assert.Positive(t, o.started[0])
		assert.Less(t, o.started[0], patience)
		assert.Empty(t, o.faults, "a command that fails is no fault")
	}
}

// A job that goes on under another supervisor has begun before.
func TestObserverOfTheNextSupervisor(t *testing.T) {
	t.Parallel()
	w, o := observed(t)
	req := w.request(`cd ` + w.dir + `; mkfifo gate; echo $$ >shell; read x <gate`)
	w.abandoned(req)
	w.awaitFile("shell")
	done := w.run(w.ctx(), req, nil)
	require.NoError(t, os.WriteFile(filepath.Join(w.dir, "gate"), []byte("through\n"), 0))
	assert.Equal(t, outcome{result: protocol.Passed}, w.await(done))
	assert.Equal(t, []string{"shell"}, o.workers, "by the first supervisor")
	assert.Len(t, o.started, 1)
	assert.Empty(t, o.faults)
}

func TestFaults(t *testing.T) {
	t.Parallel()
	w, o := observed(t)
	done := make(chan outcome, 1)
	go func() {
		result, err := New(w.settings, w.folder).Run(w.ctx(), nil, errors.New("no job request"), Control{})
		done <- outcome{result, err}
	}()
	assert.Equal(t, outcome{result: protocol.Failed}, w.await(done))
	assert.Equal(t, []Fault{BadRequest}, o.faults)

	w, o = observed(t)
	req := w.request("true")
	req.Executor = "nobody-has-it"
	assert.Equal(t, outcome{result: protocol.Failed}, w.await(w.run(w.ctx(), req, nil)))
	assert.Equal(t, []Fault{NoStart}, o.faults)
	assert.Empty(t, o.refused, "there is none to refuse")

	w, o = observed(t)
	w.settings.Finder.Dirs = []string{t.TempDir()}
	require.NoError(t, os.WriteFile(filepath.Join(w.settings.Finder.Dirs[0], "worker-text"), []byte("a text"), 0o755))
	req = w.request("true")
	req.Executor = "text"
	assert.Equal(t, outcome{result: protocol.Failed}, w.await(w.run(w.ctx(), req, nil)))
	assert.Equal(t, []string{"unusable"}, o.refused)
	assert.Equal(t, []Fault{NoStart}, o.faults)

	w, o = observed(t)
	running := w.run(w.ctx(), w.request(w.tree()), nil)
	w.awaitTree()
	require.NoError(t, syscall.Kill(w.workerPID(), syscall.SIGKILL))
	assert.Equal(t, outcome{result: protocol.Failed}, w.await(running))
	assert.Equal(t, []Fault{WorkerLost}, o.faults)
}

// A job that was stopped before it began has no fault.
func TestNoFault(t *testing.T) {
	t.Parallel()
	w, o := observed(t)
	stop := make(chan struct{})
	close(stop)
	assert.Equal(t, protocol.Stopped, w.await(w.run(w.ctx(), w.request("true"), stop)).result)
	assert.Empty(t, o.faults)
	assert.Empty(t, o.workers)
}
