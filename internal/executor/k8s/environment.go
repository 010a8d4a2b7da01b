package k8s

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	executorsettings "github.com/signalman-ci/signalman/internal/executor/settings"
	"github.com/signalman-ci/signalman/internal/kube"
	"github.com/signalman-ci/signalman/internal/pullauth"
	"github.com/signalman-ci/signalman/internal/session/helper"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const (
	createDirective = "Creating Kubernetes resources for job..."
	startDirective  = "Starting shell session..."

	// shellStartLimit is how long a profile may take.
	shellStartLimit = time.Minute
	// bringTries is how often the helper is brought into a pod that runs, with growing pauses.
	bringTries = 5
	firstPause = 100 * time.Millisecond
	// resumeLimit is how long a job goes on without a connection to its pod: as long as an API server's upgrade takes, and less than the hub's
	// patience. A broken connection is told in the log after quietLimit.
	resumeLimit = 10 * time.Minute
	quietLimit  = 5 * time.Second
	// stopLimit is how long a job that is stopped waits for an API server to tell its pod.
	stopLimit = 30 * time.Second
	// againPause is between two tries of a request that the API server couldn't answer.
	againPause = 500 * time.Millisecond
	// leftLimit is how long what an earlier run of the same job has left may take to go.
	leftLimit = time.Minute
)

// environment is the pod of one job.
type environment struct {
	binary   func(arch string) ([]byte, error) // of the helper
	cluster  *kube.Cluster
	job      *protocol.Job
	settings *protocol.Settings
	options  executorsettings.Kubernetes
	keys     pullauth.Keyring

	// pod is nil until it is made, and watch until it is followed. mayBe is set when a pod may be there nevertheless.
	pod   *corev1.Pod
	mayBe bool
	watch *watcher

	mu      sync.Mutex // guards what follows while shells come and Stop looks
	client  *helper.Client
	relay   io.ReadWriteCloser // the first one, until it is dialled
	broken  time.Time          // since when there is no connection; zero: there is one
	warned  bool
	first   protocol.Shell // opened while preparing, for the first OpenShell
	stopped bool
}

// prepare makes everything up to an open shell.
func (e *environment) prepare(ctx context.Context, log protocol.SectionLog) error {
	if err := e.createSection(ctx, log); err != nil {
		return err
	}
	return e.startSection(ctx, log)
}

func (e *environment) createSection(ctx context.Context, log protocol.SectionLog) (err error) {
	out, end := log.Section(createDirective)
	defer func() { end(codeOf(err)) }()
	template, err := loadTemplate(ctx, e.cluster, e.options.PodSpec)
	if err != nil {
		return err
	}
	if e.job.Compose != nil && len(e.job.Compose.ImagePullCredentials) > 0 {
		if e.keys, err = pullauth.Resolve(ctx, e.job.Compose.ImagePullCredentials, pullauth.Options{}); err != nil {
			return err
		}
		for _, line := range e.keys.Describe() {
			fmt.Fprintln(out, "Image pull credentials for "+line)
		}
	}
	b := builder{job: e.job, settings: e.settings, options: e.options, template: template, keys: e.keys}
	r, err := b.build()
	if err != nil {
		return err
	}
	for _, w := range r.warnings {
		fmt.Fprintln(out, "Warning: "+w)
	}
	if err := e.create(ctx, out, r); err != nil {
		return err
	}
	fmt.Fprintf(out, "Pod %s in namespace %s\n", e.pod.Name, e.cluster.Namespace())
	return nil
}

// create makes the pod first, held back from the scheduler, then its Secrets, which so have an owner from the first: whenever this ends
// in the middle nothing is left but a pod that can be found and runs nowhere.
func (e *environment) create(ctx context.Context, out io.Writer, r resources) (err error) {
	if err := savePlace(e.settings.LogPath, place(e.options)); err != nil {
		return err
	}
	e.mayBe = true
	if e.pod, err = e.createPod(ctx, r.pod); err != nil {
		e.mayBe = e.mayBe && !refused(err)
		return err
	}
	owner := []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: e.pod.Name, UID: e.pod.UID}}
	var noEvents error
	steps := []func() error{
		func() (err error) { e.watch, noEvents, err = watch(ctx, e.cluster, e.pod); return err },
		func() error { return e.createSecret(ctx, r.env, owner) },
	}
	if r.pull != nil {
		steps = append(steps, func() error { return e.createSecret(ctx, r.pull, owner) })
	}
	if err := inParallel(steps, func(_ int, step func() error) error { return step() }); err != nil {
		return err
	}
	if noEvents != nil {
		fmt.Fprintf(out, "Warning: it can't all be told what the pod waits for: %v\n", noEvents)
	}
	return e.cluster.Ungate(ctx, e.pod)
}

// refused tells that the API server has answered, and didn't make what it was asked for.
func refused(err error) bool {
	var status interface{ Status() metav1.Status }
	return errors.As(err, &status) && !errors.Is(err, kube.ErrUnreachable) && !errors.Is(err, kube.ErrExists)
}

func (e *environment) createPod(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	made, err := e.cluster.CreatePod(ctx, pod)
	if !errors.Is(err, kube.ErrExists) {
		if err != nil {
			return nil, err
		}
		return made, nil
	}
	there, err := e.cluster.Pod(ctx, pod.Name)
	if err != nil && !errors.Is(err, kube.ErrNotFound) {
		return nil, err
	}
	if err == nil && there.Labels[LabelInstance] != pod.Labels[LabelInstance] {
		e.mayBe = false
		return nil, fmt.Errorf("there is a pod %s in namespace %s already, which isn't this agent's: see whether another agent runs the same job", pod.Name, e.cluster.Namespace())
	}
	limited, cancel := context.WithTimeout(ctx, leftLimit)
	defer cancel()
	if err := removeAll(limited, e.cluster, e.settings.InstanceID, e.job.ID, cleanupGrace); err != nil {
		return nil, err
	}
	if made, err = e.cluster.CreatePod(ctx, pod); err != nil {
		return nil, err
	}
	return made, nil
}

// createSecret takes the place of a Secret of the same name, whose pod is gone: the name is this pod's.
func (e *environment) createSecret(ctx context.Context, secret *corev1.Secret, owner []metav1.OwnerReference) error {
	secret.OwnerReferences = owner
	err := e.cluster.CreateSecret(ctx, secret)
	if !errors.Is(err, kube.ErrExists) {
		return err
	}
	if err := unlessGone(e.cluster.DeleteSecret(ctx, secret.Name)); err != nil {
		return err
	}
	return e.cluster.CreateSecret(ctx, secret)
}

func (e *environment) startSection(ctx context.Context, log protocol.SectionLog) (err error) {
	out, end := log.Section(startDirective)
	defer func() { end(codeOf(err)) }()
	s := &starting{watch: e.watch, out: out, limit: e.options.PodStartTimeout, user: e.keys.User, told: map[string]bool{}, started: map[string]bool{}}
	if err := s.await(ctx, s.mainRuns); err != nil {
		return err
	}
	if err := e.bringHelper(ctx); err != nil {
		return err
	}
	shell, err := e.openShell(ctx)
	if err != nil {
		return err
	}
	e.first = shell
	if err := s.await(ctx, s.allUp); err != nil {
		return err
	}
	if err := e.placeHooks(ctx); err != nil {
		return err
	}
	fmt.Fprintln(out, "Starting a new bash session.")
	return nil
}

// bringHelper makes the first connection, over which the helper comes into the pod.
func (e *environment) bringHelper(ctx context.Context) (err error) {
	pause := firstPause
	for range bringTries {
		var streams io.ReadWriteCloser
		streams, err = e.cluster.Exec(ctx, e.pod.Name, mainContainer, "bash", "-c", bringScript)
		if err == nil {
			if err = bring(ctx, streams, e.binary); err == nil {
				e.relay = streams
				return nil
			}
			_ = streams.Close()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if gone := e.watch.end(ctx); gone != nil {
			return gone
		}
		if permanent := (permanentError{}); errors.As(err, &permanent) || errors.Is(err, kube.ErrForbidden) {
			break
		}
		select {
		case <-time.After(pause):
			pause *= 2
		case <-ctx.Done():
		}
	}
	if errors.Is(err, kube.ErrForbidden) {
		return err
	}
	return fmt.Errorf("commands can't be run in container %s (image %s), which needs bash, head, wc, chmod and mv: %w", mainContainer, e.image(), err)
}

func (e *environment) image() string { return e.pod.Spec.Containers[0].Image }

// placeHooks puts copies of the hooks that this host has to the same places in main; others have to be there already.
func (e *environment) placeHooks(ctx context.Context) error {
	for _, hook := range []protocol.Hook{e.settings.PreHook, e.settings.PostHook} {
		if !path.IsAbs(hook.Path) {
			continue
		}
		content, err := os.ReadFile(hook.Path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = e.client.Put(ctx, helper.File{Path: hook.Path, Mode: 0o755, Content: content})
		}
		if err != nil {
			return fmt.Errorf("cannot give a hook of the agent to container %s: %w", mainContainer, err)
		}
	}
	return nil
}

// dial runs the relay in main. Its error is final if the pod has ended.
func (e *environment) dial(ctx context.Context) (io.ReadWriteCloser, error) {
	e.mu.Lock()
	relay := e.relay
	e.relay = nil
	e.mu.Unlock()
	if relay != nil {
		return relay, nil
	}
	if err := e.watch.end(ctx); err != nil {
		return nil, err
	}
	conn, err := e.cluster.Exec(ctx, e.pod.Name, mainContainer, helperPath, helper.RelayMode, helperFolder)
	if err == nil {
		e.tellConnected()
		return conn, nil
	}
	if ctx.Err() != nil {
		return nil, err
	}
	if gone := e.watch.end(ctx); gone != nil {
		return nil, gone
	}
	e.tellBroken(err)
	return nil, err
}

// tellBroken tells once of a connection that doesn't come back soon.
func (e *environment) tellBroken(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broken.IsZero() {
		e.broken = time.Now()
	}
	if !e.warned && time.Since(e.broken) > quietLimit {
		e.warned = true
		e.watch.board.Tell(fmt.Sprintf("Warning: there is no connection to the pod now; the command goes on there, and its output comes later. (%v)\n", err))
	}
}

func (e *environment) tellConnected() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.warned {
		e.watch.board.Tell("The connection to the pod is back.\n")
	}
	e.broken, e.warned = time.Time{}, false
}

func (e *environment) OpenShell(ctx context.Context) (protocol.Shell, error) {
	if first := e.first; first != nil {
		e.first = nil
		return first, nil
	}
	return e.openShell(ctx)
}

func (e *environment) openShell(ctx context.Context) (protocol.Shell, error) {
	e.mu.Lock()
	if e.client == nil {
		e.client = helper.Attach(e.dial, helper.ClientOptions{ResumeTimeout: resumeLimit})
	}
	client := e.client
	e.mu.Unlock()
	dir := "~"
	if e.pod.Spec.Containers[0].WorkingDir != "" { // the ConfigMap's
		dir = ""
	}
	s, err := client.Open(ctx, helper.ShellOptions{Dir: dir, Login: true, StartTimeout: shellStartLimit})
	if err != nil {
		if errors.Is(err, helper.ErrGone) {
			return nil, err
		}
		return nil, fmt.Errorf("container %s (image %s): %w", mainContainer, e.image(), err)
	}
	return &shell{Shell: s, watch: e.watch}, nil
}

func (e *environment) ResolvePath(path string) string { return path }

func (e *environment) Inject(ctx context.Context, file protocol.File) error {
	if err := e.client.Put(ctx, helper.File{Path: file.Path, Mode: file.Mode, Content: file.Content}); err != nil {
		return fmt.Errorf("cannot inject %s: %w", file.Path, err)
	}
	return nil
}

// Stop ends what runs in main. The other containers go on: the job's last words may need them.
func (e *environment) Stop(ctx context.Context) error {
	e.mu.Lock()
	e.stopped = true
	client := e.client
	e.mu.Unlock()
	if client == nil {
		return nil
	}
	limit := time.Now().Add(stopLimit)
	for {
		err := client.End(ctx, e.settings.StopGrace)
		if err == nil || errors.Is(err, helper.ErrGone) {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(limit) {
			return err // what runs goes with the pod
		}
		select {
		case <-time.After(againPause):
		case <-ctx.Done():
		}
	}
}

// Close deletes the pod and its Secrets and waits until the pod is gone.
func (e *environment) Close(ctx context.Context) error {
	e.mu.Lock()
	grace := min(e.settings.StopGrace, leftoverGrace)
	if e.stopped {
		grace = e.settings.StopGrace
	}
	client, relay := e.client, e.relay
	e.relay = nil
	e.mu.Unlock()
	defer e.cluster.Close()
	if e.watch != nil {
		e.watch.disown()
		defer e.watch.close()
	}
	if client != nil {
		client.HangUp()
	}
	if relay != nil {
		_ = relay.Close()
	}
	if !e.mayBe {
		return nil
	}
	if err := e.removePod(ctx, grace); err != nil {
		return err
	}
	return forgetPlace(e.settings.LogPath)
}

// removePod removes the pod that is known, or one whose creation wasn't answered. It waits for an API server that can't be reached.
func (e *environment) removePod(ctx context.Context, grace time.Duration) error {
	for {
		var err error
		if e.watch != nil {
			pod, gone, _ := e.watch.state()
			if gone { // and its Secrets with it; what has their names may be another pod's by now
				return nil
			}
			if err = remove(ctx, e.cluster, pod, grace); err == nil {
				return e.watch.awaitGone(ctx)
			}
		} else {
			err = removeAll(ctx, e.cluster, e.settings.InstanceID, e.job.ID, grace)
		}
		if err == nil || !errors.Is(err, kube.ErrUnreachable) {
			return err
		}
		select {
		case <-time.After(againPause):
		case <-ctx.Done():
			return err
		}
	}
}
