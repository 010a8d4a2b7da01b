package compose

import (
	"context"
	"flag"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/internal/engine"
	"github.com/signalman-ci/signalman/internal/executor/settings"
	"github.com/signalman-ci/signalman/internal/testimage"
	"github.com/signalman-ci/signalman/shared/protocol"
	"github.com/signalman-ci/signalman/test/harness"
)

// Tests wait for the engine more than they compute. Those with host setup commands, which end all of this process's children, and
// with an engine of their own are not parallel.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// patience is for conditions that come sooner or later.
const patience = 90 * time.Second

// look is the pause between two looks at the engine.
const look = 20 * time.Millisecond

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// record is the log that an executor writes.
type record struct {
	mu       sync.Mutex
	sections []*section
}

type section struct {
	directive string
	output    harness.Buffer
	code      int
	ended     bool
}

func (r *record) Section(directive string) (io.Writer, func(int)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &section{directive: directive}
	r.sections = append(r.sections, s)
	return &s.output, func(code int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		s.code, s.ended = code, true
	}
}

// all is what all sections say.
func (r *record) all() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var text strings.Builder
	for _, s := range r.sections {
		text.WriteString(s.directive + "\n" + s.output.String())
	}
	return text.String()
}

// of is what a section says that is there once, and its exit code.
func (r *record) of(t *testing.T, directive string) (string, int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sections {
		if s.directive == directive {
			return s.output.String(), s.code
		}
	}
	require.Fail(t, "no section "+directive)
	return "", 0
}

func (r *record) directives() (all []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sections {
		all = append(all, s.directive)
	}
	return all
}

// world is one job on a real engine.
type world struct {
	t        *testing.T
	options  settings.Compose
	engine   *engine.Engine
	executor protocol.Executor
	job      *protocol.Job
	set      *protocol.Settings
	log      *record
	env      protocol.Environment
}

// newWorld has a job whose first container is main, of image; it isn't prepared yet.
func newWorld(t *testing.T, eng *engine.Engine, image string, services ...protocol.Container) *world {
	t.Helper()
	helper := testimage.Helper(t)
	w := &world{t: t, options: settings.DefaultCompose(), engine: eng, log: &record{},
		executor: New(func(string) ([]byte, error) { return helper, nil }),
		job: &protocol.Job{ID: "job-" + uuid.NewString(), Compose: &protocol.Compose{
			Containers: append([]protocol.Container{{Name: "main", Image: image}}, services...),
		}},
		set: &protocol.Settings{InstanceID: uuid.NewString(), TempDir: t.TempDir(), StopGrace: 2 * time.Second,
			BaseEnv: []protocol.EnvVar{{Name: "PATH", Value: os.Getenv("PATH")}}},
	}
	t.Cleanup(w.end)
	return w
}

// end closes the environment, if there is one, after which nothing may be left.
func (w *world) end() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if w.env != nil {
		assert.NoError(w.t, w.env.Close(ctx))
	}
	w.env = nil
	left, err := w.executor.List(ctx, w.set.InstanceID)
	assert.NoError(w.t, err)
	if !assert.Empty(w.t, left) {
		_ = w.executor.Cleanup(ctx, w.job, w.set)
	}
	for _, s := range w.log.sections {
		assert.True(w.t, s.ended, s.directive)
	}
}

func (w *world) main() *protocol.Container { return &w.job.Compose.Containers[0] }

func (w *world) prepare() error {
	w.t.Helper()
	w.set.Extra = w.options.Extra()
	env, err := w.executor.Prepare(within(w.t), w.job, w.set, w.log)
	w.env = env
	return err
}

func (w *world) shell() protocol.Shell {
	w.t.Helper()
	if w.env == nil {
		require.NoError(w.t, w.prepare())
	}
	s, err := w.env.OpenShell(within(w.t))
	require.NoError(w.t, err)
	return s
}

func (w *world) run(s protocol.Shell, script string) (string, protocol.Exit) {
	w.t.Helper()
	var out harness.Buffer
	exit, err := s.Run(within(w.t), script, &out)
	require.NoError(w.t, err, out.String())
	return out.String(), exit
}

// things are what the engine has of the job.
func (w *world) things(name string) []engine.Thing {
	w.t.Helper()
	all, err := w.engine.List(within(w.t), labels(w.set.InstanceID, w.job.ID))
	require.NoError(w.t, err)
	var out []engine.Thing
	for _, thing := range all {
		if name == "" || thing.Labels[labelContainer] == name {
			out = append(out, thing)
		}
	}
	return out
}

// begin runs a script that isn't waited for.
func (w *world) begin(s protocol.Shell, script string) (out *harness.Buffer, ended <-chan outcome) {
	out = &harness.Buffer{}
	done, over := make(chan outcome, 1), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(over)
		exit, err := s.Run(ctx, script, out)
		done <- outcome{exit, err}
	}()
	w.t.Cleanup(func() { // before the environment is closed
		cancel()
		<-over
	})
	return out, done
}

type outcome struct {
	exit protocol.Exit
	err  error
}

// outcomeOf waits for the end of what begin has begun.
func outcomeOf(t *testing.T, ended <-chan outcome) outcome {
	t.Helper()
	select {
	case o := <-ended:
		return o
	case <-time.After(patience):
		require.Fail(t, "the command doesn't end")
		return outcome{}
	}
}

// docker runs the engine's own command, for what the product has no use for.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(within(t), "docker", args...).CombinedOutput()
	require.NoError(t, err, string(out))
	return strings.TrimSpace(string(out))
}

func containsLine(text, line string) bool { return slices.Contains(strings.Split(text, "\n"), line) }

// later waits for output.
func later(t *testing.T, out *harness.Buffer, text string) {
	t.Helper()
	if !assert.Eventually(t, func() bool { return strings.Contains(out.String(), text) }, patience, 5*time.Millisecond) {
		require.Contains(t, out.String(), text)
	}
}

func hostFile(host, container string) settings.File {
	return settings.File{Host: host, Container: container}
}
