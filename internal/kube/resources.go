package kube

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// CreatePod makes a pod and gives it as the API server has it.
func (c *Cluster) CreatePod(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	made := &corev1.Pod{}
	return made, c.create(ctx, "pods", pod, made)
}

// CreateSecret makes a Secret.
func (c *Cluster) CreateSecret(ctx context.Context, secret *corev1.Secret) error {
	return c.create(ctx, "secrets", secret, &corev1.Secret{})
}

func (c *Cluster) create(ctx context.Context, resource string, obj, made runtime.Object) error {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	err := c.core.Post().Namespace(c.namespace).Resource(resource).Body(obj).Do(ctx).Into(made)
	if err != nil {
		return c.explain(Right{Verb: "create", Resource: resource}, err)
	}
	return nil
}

// Ungate lets the scheduler have a pod that was made with scheduling gates.
func (c *Cluster) Ungate(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	patch := fmt.Sprintf(`{"metadata":{"uid":%q},"spec":{"schedulingGates":null}}`, pod.UID)
	err := c.core.Patch(types.MergePatchType).Namespace(c.namespace).Resource("pods").Name(pod.Name).Body([]byte(patch)).Do(ctx).Error()
	if err != nil {
		return c.explain(Right{Verb: "patch", Resource: "pods"}, err)
	}
	return nil
}

// Pod looks at a pod.
func (c *Cluster) Pod(ctx context.Context, name string) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	pod := &corev1.Pod{}
	if err := c.core.Get().Namespace(c.namespace).Resource("pods").Name(name).Do(ctx).Into(pod); err != nil {
		return nil, c.explain(Right{Verb: "get", Resource: "pods"}, err)
	}
	return pod, nil
}

// Pods are those that carry all of labels.
func (c *Cluster) Pods(ctx context.Context, labels map[string]string) ([]corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	list := &corev1.PodList{}
	err := c.core.Get().Namespace(c.namespace).Resource("pods").
		VersionedParams(&metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: labels})}, parameters).
		Do(ctx).Into(list)
	if err != nil {
		return nil, c.explain(Right{Verb: "list", Resource: "pods"}, err)
	}
	return list.Items, nil
}

// DeletePod asks for a pod's end. Its containers have the grace, whole seconds, from TERM to KILL; without grace a pod goes at once where no
// node runs it. A pod that is gone, or another one of that name, is ErrNotFound.
func (c *Cluster) DeletePod(ctx context.Context, pod *corev1.Pod, grace time.Duration) error {
	seconds := int64(grace / time.Second)
	if grace > 0 && grace%time.Second > 0 {
		seconds++
	}
	err := c.delete(ctx, "pods", pod.Name, &metav1.DeleteOptions{GracePeriodSeconds: &seconds, Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	return err
}

// DeleteSecret removes a Secret; one that isn't there is ErrNotFound.
func (c *Cluster) DeleteSecret(ctx context.Context, name string) error {
	return c.delete(ctx, "secrets", name, &metav1.DeleteOptions{})
}

func (c *Cluster) delete(ctx context.Context, resource, name string, o *metav1.DeleteOptions) error {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	err := c.core.Delete().Namespace(c.namespace).Resource(resource).Name(name).Body(o).Do(ctx).Error()
	switch {
	case err == nil:
		return nil
	case apierrors.IsConflict(err): // the precondition: it is another one's by now
		return &apiError{text: fmt.Sprintf("cannot delete %s %s: it was replaced", resource, name), kind: ErrNotFound, cause: err}
	default:
		return c.explain(Right{Verb: "delete", Resource: resource}, err)
	}
}

// ConfigMap gives the texts of a ConfigMap.
func (c *Cluster) ConfigMap(ctx context.Context, name string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	m := &corev1.ConfigMap{}
	if err := c.core.Get().Namespace(c.namespace).Resource("configmaps").Name(name).Do(ctx).Into(m); err != nil {
		return nil, c.explain(Right{Verb: "get", Resource: "configmaps"}, err)
	}
	return m.Data, nil
}

// LastLines is the end of what a container has printed.
func (c *Cluster) LastLines(ctx context.Context, pod, container string, count int64) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	const most = 64 << 10
	stream, err := c.core.Get().Namespace(c.namespace).Resource("pods").Name(pod).SubResource("log").
		VersionedParams(&corev1.PodLogOptions{Container: container, TailLines: &count}, parameters).Stream(ctx)
	if err != nil {
		return nil, c.explain(Right{Verb: "get", Resource: "pods", Subresource: "log"}, err)
	}
	defer stream.Close()
	text, err := io.ReadAll(io.LimitReader(stream, most))
	if err != nil {
		return nil, fmt.Errorf("cannot read the log of container %s: %w", container, err)
	}
	return strings.FieldsFunc(strings.ToValidUTF8(string(text), "\uFFFD"), func(r rune) bool { return r == '\n' || r == '\r' }), nil
}

// TryPod asks whether a pod could be made, and makes none.
func (c *Cluster) TryPod(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	err := c.core.Post().Namespace(c.namespace).Resource("pods").
		VersionedParams(&metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}, parameters).Body(pod).Do(ctx).Error()
	if err != nil {
		return c.explain(Right{Verb: "create", Resource: "pods"}, err)
	}
	return nil
}
