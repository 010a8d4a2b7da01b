// Package k8s is the executor for jobs in pods of a Kubernetes cluster, over internal/kube.
//
// The first container, main, is where commands run: a helper (internal/session/helper) put into it owns the job's shell, and is
// reached over an exec. So the shell lives in the pod, not in the stream: one that breaks is made anew, and nothing is lost. All that is made
// carries the job's id as a label, by which it is found after the worker's death. docs/decisions/0009-kubernetes.md says why it is as it is.
package k8s

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	executorsettings "github.com/signalman-ci/signalman/internal/executor/settings"
	"github.com/signalman-ci/signalman/internal/kube"
	"github.com/signalman-ci/signalman/internal/version"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const (
	// leftoverGrace is what containers get to end at a job's regular end, and cleanupGrace after the death of its worker.
	leftoverGrace = time.Second
	cleanupGrace  = 5 * time.Second
	// undoLimit bounds the removal of what a Prepare that fails has made.
	undoLimit = time.Minute
	// lateLimit is how long a dead worker's last request may take to show at the API server.
	lateLimit = 500 * time.Millisecond
)

// rights are what the executor needs, as packaging/kubernetes/role.yaml gives it.
var rights = []kube.Right{
	{Verb: "create", Resource: "pods"},
	{Verb: "get", Resource: "pods"},
	{Verb: "list", Resource: "pods"},
	{Verb: "watch", Resource: "pods"},
	{Verb: "patch", Resource: "pods"},
	{Verb: "delete", Resource: "pods"},
	{Verb: "get", Resource: "pods", Subresource: "exec"},
	{Verb: "create", Resource: "pods", Subresource: "exec"},
	{Verb: "get", Resource: "pods", Subresource: "log"},
	{Verb: "create", Resource: "secrets"},
	{Verb: "delete", Resource: "secrets"},
	{Verb: "list", Resource: "events"},
	{Verb: "watch", Resource: "events"},
}

// configMapRight is needed with kubernetes-pod-spec only.
var configMapRight = kube.Right{Verb: "get", Resource: "configmaps"}

// New makes the executor. helper gives the helper's binary for an architecture (helperbin.For).
func New(helper func(arch string) ([]byte, error)) protocol.Executor { return executor{helper} }

type executor struct {
	helper func(arch string) ([]byte, error)
}

func (executor) Describe() protocol.Description {
	return protocol.Description{Name: "k8s", Version: version.Version}
}

func place(o executorsettings.Kubernetes) kube.Options {
	return kube.Options{Kubeconfig: o.Kubeconfig, Context: o.Context, Namespace: o.Namespace}
}

func (x executor) Check(ctx context.Context) []protocol.CheckResult {
	var results []protocol.CheckResult
	add := func(name, good string, err error) bool {
		r := protocol.CheckResult{Name: name, Status: protocol.CheckOK, Message: good}
		if err != nil {
			r.Status, r.Message = protocol.CheckFailed, err.Error()
		}
		results = append(results, r)
		return err == nil
	}
	options, err := executorsettings.KubernetesFrom(nil, os.Getenv)
	if err != nil {
		add("cluster", "", err)
		return results
	}
	cluster, err := kube.Connect(place(options))
	if err != nil {
		add("cluster", "", err)
		return results
	}
	defer cluster.Close()
	apiVersion, err := cluster.Version(ctx)
	if !add("cluster", fmt.Sprintf("Kubernetes %s at %s", apiVersion, cluster.Server()), err) {
		return results
	}
	if options.PodSpec != "" {
		rights := append(slices.Clone(rights), configMapRight)
		add("rights", fmt.Sprintf("all %d in namespace %s", len(rights), cluster.Namespace()), checkRights(ctx, cluster, rights))
	} else {
		add("rights", fmt.Sprintf("all %d in namespace %s", len(rights), cluster.Namespace()), checkRights(ctx, cluster, rights))
	}
	template, err := loadTemplate(ctx, cluster, options.PodSpec)
	if options.PodSpec != "" {
		add("pod spec", "ConfigMap "+options.PodSpec, err)
	}
	if err == nil {
		add("pod", "the API server would take a job's pod", tryPod(ctx, cluster, options, template))
	}
	return results
}

// checkRights names what is missing.
func checkRights(ctx context.Context, cluster *kube.Cluster, rights []kube.Right) error {
	lacking := make([]string, len(rights))
	err := inParallel(rights, func(i int, r kube.Right) error {
		ok, err := cluster.Can(ctx, r)
		if err == nil && !ok {
			lacking[i] = r.String()
		}
		return err
	})
	if err != nil {
		return err
	}
	lacking = slices.DeleteFunc(lacking, func(s string) bool { return s == "" })
	if len(lacking) > 0 {
		return fmt.Errorf("the agent may not %s in namespace %s: give it the Role of packaging/kubernetes/role.yaml", strings.Join(lacking, ", "), cluster.Namespace())
	}
	return nil
}

// tryPod asks the API server for a pod without making one: namespace, policies and quotas have their say.
func tryPod(ctx context.Context, cluster *kube.Cluster, options executorsettings.Kubernetes, t template) error {
	options.DefaultImage = cmp.Or(options.DefaultImage, "example")
	b := builder{job: &protocol.Job{ID: "check-" + strings.ToLower(rand.Text()[:8])}, settings: &protocol.Settings{InstanceID: "check"}, options: options, template: t}
	r, err := b.build()
	if err != nil {
		return err
	}
	return cluster.TryPod(ctx, r.pod)
}

func (x executor) Prepare(ctx context.Context, job *protocol.Job, settings *protocol.Settings, log protocol.SectionLog) (protocol.Environment, error) {
	options, err := executorsettings.KubernetesFrom(settings.Extra, os.Getenv)
	if err != nil {
		return nil, err
	}
	if job.Compose != nil && len(job.Compose.HostSetupCommands) > 0 {
		return nil, errors.New("the job has host_setup_commands, and a pod has no host to run them on")
	}
	cluster, err := kube.Connect(place(options))
	if err != nil {
		return nil, err
	}
	e := &environment{binary: x.helper, cluster: cluster, job: job, settings: settings, options: options}
	if err := e.prepare(ctx, log); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
		defer cancel()
		return nil, errors.Join(err, e.Close(undo))
	}
	return e, nil
}

func (executor) List(ctx context.Context, instanceID string) ([]protocol.Leftover, error) {
	options, err := executorsettings.KubernetesFrom(nil, os.Getenv)
	if err != nil || options.Unused {
		return nil, err
	}
	cluster, err := kube.Connect(place(options))
	if errors.Is(err, kube.ErrNoCluster) {
		return nil, nil // and never was
	}
	if err != nil {
		return nil, err
	}
	defer cluster.Close()
	return list(ctx, cluster, instanceID)
}

func list(ctx context.Context, cluster *kube.Cluster, instance string) ([]protocol.Leftover, error) {
	pods, err := cluster.Pods(ctx, map[string]string{LabelInstance: asLabel(instance)})
	if err != nil {
		return nil, err
	}
	left := map[string][]string{}
	for _, p := range pods {
		job := p.Annotations[annotationJob]
		left[job] = append(left[job], "pod "+p.Name)
	}
	var out []protocol.Leftover
	for _, job := range slices.Sorted(maps.Keys(left)) {
		out = append(out, protocol.Leftover{JobID: job, What: strings.Join(left[job], ", ")})
	}
	return out, nil
}

func (executor) Cleanup(ctx context.Context, job *protocol.Job, settings *protocol.Settings) error {
	options, err := executorsettings.KubernetesFrom(settings.Extra, os.Getenv)
	if err != nil {
		return err
	}
	places := []kube.Options{place(options)}
	saved, wasSaved := savedPlace(settings.LogPath)
	if wasSaved && saved != places[0] {
		places = append(places, saved)
	}
	for _, o := range places {
		err = errors.Join(err, cleanupIn(ctx, o, settings.InstanceID, job.ID))
	}
	if err == nil && wasSaved {
		err = forgetPlace(settings.LogPath)
	}
	return err
}

func cleanupIn(ctx context.Context, o kube.Options, instance, job string) error {
	cluster, err := kube.Connect(o)
	if errors.Is(err, kube.ErrNoCluster) {
		return nil
	}
	if err != nil {
		return err
	}
	defer cluster.Close()
	if err := removeAll(ctx, cluster, instance, job, cleanupGrace); err != nil {
		return err
	}
	select {
	case <-time.After(lateLimit):
		return removeAll(ctx, cluster, instance, job, cleanupGrace)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// removeAll removes all that carries a job's labels, and waits until it is gone.
func removeAll(ctx context.Context, cluster *kube.Cluster, instance, job string, grace time.Duration) error {
	pods, err := cluster.Pods(ctx, ownLabels(instance, job))
	if err != nil {
		return err
	}
	return inParallel(pods, func(_ int, p corev1.Pod) error {
		w, _, err := watch(ctx, cluster, &p)
		if err != nil {
			return err
		}
		defer w.close()
		return errors.Join(remove(ctx, cluster, &p, grace), w.awaitGone(ctx))
	})
}

// remove asks for the end of a pod and of its Secrets. Those go first: they are known by the pod's name. What these credentials may not remove of
// them goes a little after the pod, its owner.
func remove(ctx context.Context, cluster *kube.Cluster, pod *corev1.Pod, grace time.Duration) error {
	if pod.Spec.NodeName == "" {
		grace = 0
	}
	names := []string{envSecretName(pod.Name), pullSecretName(pod.Name)}
	err := inParallel(names, func(_ int, name string) error {
		err := cluster.DeleteSecret(ctx, name)
		if errors.Is(err, kube.ErrForbidden) {
			return nil
		}
		return unlessGone(err)
	})
	return errors.Join(err, unlessGone(cluster.DeletePod(ctx, pod, grace)))
}

func unlessGone(err error) error {
	if errors.Is(err, kube.ErrNotFound) {
		return nil
	}
	return err
}
