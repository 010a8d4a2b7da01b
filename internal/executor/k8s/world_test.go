package k8s

import (
	"context"
	"flag"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"

	"github.com/signalman-ci/signalman/internal/executor/settings"
	"github.com/signalman-ci/signalman/internal/kube"
	"github.com/signalman-ci/signalman/internal/testcluster"
	"github.com/signalman-ci/signalman/internal/testimage"
	"github.com/signalman-ci/signalman/shared/protocol"
	"github.com/signalman-ci/signalman/test/harness"
)

// Tests wait for the cluster more than they compute.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	// It ends at its next tick, in five seconds at most.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("k8s.io/client-go/tools/remotecommand.(*heartbeat).start"))
}

// patience is for conditions that come sooner or later.
const patience = 3 * time.Minute

// look is the pause between two looks at the cluster.
const look = 50 * time.Millisecond

func within(t testing.TB) context.Context {
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

// world is one job in a real cluster.
type world struct {
	t        *testing.T
	cluster  *testcluster.Cluster
	options  settings.Kubernetes
	executor protocol.Executor
	job      *protocol.Job
	set      *protocol.Settings
	log      *record
	env      protocol.Environment
}

// newWorld has a job without containers, in the namespace default; it isn't prepared yet.
func newWorld(t *testing.T, sidecars ...protocol.Container) *world {
	t.Helper()
	cluster := testcluster.Need(t)
	helper := testimage.Helper(t)
	w := &world{t: t, cluster: cluster, options: settings.DefaultKubernetes(), log: &record{},
		executor: New(func(string) ([]byte, error) { return helper, nil }),
		job:      &protocol.Job{ID: uuid.NewString()},
		set:      &protocol.Settings{InstanceID: uuid.NewString(), TempDir: t.TempDir(), StopGrace: 2 * time.Second},
	}
	w.options.Kubeconfig, w.options.DefaultImage = cluster.Kubeconfig, cluster.Image(t)
	if len(sidecars) > 0 {
		w.job.Compose = &protocol.Compose{Containers: append([]protocol.Container{{Name: "main", Image: cluster.Image(t)}}, sidecars...)}
	}
	t.Cleanup(w.end)
	return w
}

func (w *world) sidecar(name, command string) protocol.Container {
	return protocol.Container{Name: name, Image: w.cluster.Image(w.t), Command: command}
}

// end closes the environment, if there is one, after which nothing may be left.
func (w *world) end() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if w.env != nil {
		assert.NoError(w.t, w.env.Close(ctx))
	}
	w.env = nil
	w.nothingLeft()
	for _, s := range w.log.sections {
		assert.True(w.t, s.ended, s.directive)
	}
}

// nothingLeft looks for all that the job could have in the cluster. Secrets whose pod somebody else has deleted go a little later.
func (w *world) nothingLeft() {
	w.t.Helper()
	selector := LabelInstance + "=" + w.set.InstanceID
	assert.Empty(w.t, w.kubectl("get", "pods", "-o", "name", "-l", selector))
	assert.Eventually(w.t, func() bool { return w.kubectl("get", "secrets", "-o", "name", "-l", selector) == "" }, patience, look)
}

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
		require.NoError(w.t, w.prepare(), w.log.all())
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

// list is what the executor's List says, in an environment with the cluster.
func (w *world) list(instance string) ([]protocol.Leftover, error) {
	w.t.Helper()
	c, err := kube.Connect(place(w.options))
	require.NoError(w.t, err)
	defer c.Close()
	return list(within(w.t), c, instance)
}

func (w *world) podName() string { return podName(w.job.ID) }

// pod is the job's, as the cluster has it.
func (w *world) pod() *corev1.Pod {
	w.t.Helper()
	c, err := kube.Connect(place(w.options))
	require.NoError(w.t, err)
	defer c.Close()
	pod, err := c.Pod(within(w.t), w.podName())
	require.NoError(w.t, err)
	return pod
}

// kubectl does what the product has no use for, in the job's namespace.
func (w *world) kubectl(args ...string) string {
	w.t.Helper()
	namespace := w.options.Namespace
	if namespace == "" {
		namespace = "default"
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "kubectl", append([]string{"--kubeconfig", w.cluster.Kubeconfig, "-n", namespace}, args...)...).CombinedOutput()
	require.NoError(w.t, err, string(out))
	return strings.TrimSpace(string(out))
}

// apply makes what a manifest says in the job's namespace.
func (w *world) apply(manifest string) {
	w.t.Helper()
	path := w.t.TempDir() + "/manifest.yaml"
	require.NoError(w.t, os.WriteFile(path, []byte(manifest), 0o600))
	w.kubectl("apply", "-f", path)
}

// namespace gives the job one of its own.
func (w *world) namespace() {
	w.t.Helper()
	w.options.Namespace = w.cluster.Namespace(w.t)
	w.t.Cleanup(w.end)
}

// later waits for output.
func later(t *testing.T, out *harness.Buffer, text string) {
	t.Helper()
	if !assert.Eventually(t, func() bool { return strings.Contains(out.String(), text) }, patience, 5*time.Millisecond) {
		require.Contains(t, out.String(), text)
	}
}

// throughProxy makes the world's executor reach its cluster by a proxy.
func (w *world) throughProxy() *testcluster.Proxy {
	w.t.Helper()
	p := w.cluster.Proxy(w.t)
	w.t.Cleanup(w.end) // before the proxy goes
	w.options.Kubeconfig = p.Kubeconfig(w.t, w.cluster.Kubeconfig)
	return p
}
