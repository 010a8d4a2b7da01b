package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"

	"github.com/signalman-ci/signalman/internal/kube"
)

// The keys of the ConfigMap that kubernetes-pod-spec names.
const (
	keyPod      = "pod"
	keyMain     = "mainContainer"
	keySidecars = "sidecarContainers"
)

// template is what the cluster's owner wants in the pods of jobs; what a job asks for goes over it.
type template struct {
	labels, annotations map[string]string
	pod                 corev1.PodSpec
	main, sidecar       corev1.Container
}

// loadTemplate reads the ConfigMap of that name; "" is none.
func loadTemplate(ctx context.Context, cluster *kube.Cluster, name string) (template, error) {
	if name == "" {
		return template{}, nil
	}
	texts, err := cluster.ConfigMap(ctx, name)
	if errors.Is(err, kube.ErrNotFound) {
		return template{}, fmt.Errorf("there is no ConfigMap %s in namespace %s: make it, or correct kubernetes-pod-spec", name, cluster.Namespace())
	}
	if err != nil {
		return template{}, err
	}
	t, err := parseTemplate(texts)
	if err != nil {
		return template{}, fmt.Errorf("the ConfigMap %s (kubernetes-pod-spec) in namespace %s is wrong: %w", name, cluster.Namespace(), err)
	}
	return t, nil
}

func parseTemplate(texts map[string]string) (template, error) {
	var t template
	// A pod's spec, or a whole template with metadata.
	var whole struct {
		Metadata *struct {
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
		Spec *corev1.PodSpec `json:"spec"`
	}
	if err := yaml.Unmarshal([]byte(texts[keyPod]), &whole); err == nil && (whole.Metadata != nil || whole.Spec != nil) {
		if err := strict(texts, keyPod, &whole); err != nil {
			return t, err
		}
		if whole.Metadata != nil {
			t.labels, t.annotations = whole.Metadata.Labels, whole.Metadata.Annotations
		}
		if whole.Spec != nil {
			t.pod = *whole.Spec
		}
	} else if err := strict(texts, keyPod, &t.pod); err != nil {
		return t, err
	}
	return t, errors.Join(strict(texts, keyMain, &t.main), strict(texts, keySidecars, &t.sidecar))
}

// strict refuses what Kubernetes doesn't know: a mistyped key would be without effect.
func strict(texts map[string]string, key string, into any) error {
	if err := yaml.UnmarshalStrict([]byte(texts[key]), into); err != nil {
		text := strings.Join(strings.Fields(err.Error()), " ")
		for _, prefix := range []string{"error unmarshaling JSON: ", "while decoding JSON: ", "json: ", "error converting YAML to JSON: "} {
			text = strings.TrimPrefix(text, prefix)
		}
		return fmt.Errorf("key %s: %s", key, text)
	}
	return nil
}

// over merges what a job asks for over what the template has, as kubectl patch does.
func over[T any](base, job T) (T, error) {
	var merged T
	original, err := json.Marshal(base)
	if err != nil {
		return merged, err
	}
	patch, err := json.Marshal(job)
	if err != nil {
		return merged, err
	}
	result, err := strategicpatch.StrategicMergePatch(original, patch, merged)
	if err != nil {
		return merged, fmt.Errorf("cannot merge what the job asks for over the ConfigMap's: %w", err)
	}
	return merged, json.Unmarshal(result, &merged)
}

// overPod merges a job's pod, whose containers are merged already, and keeps these in front, in their order.
func overPod(base, job corev1.PodSpec) (corev1.PodSpec, error) {
	aliases := slices.Concat(job.HostAliases, base.HostAliases) // one address may have several names, which a merge would replace
	base.HostAliases, job.HostAliases = nil, nil
	merged, err := over(base, job)
	if err != nil {
		return merged, err
	}
	merged.HostAliases = aliases
	place := func(c corev1.Container) int {
		at := slices.IndexFunc(job.Containers, func(own corev1.Container) bool { return own.Name == c.Name })
		if at < 0 {
			return len(job.Containers)
		}
		return at
	}
	slices.SortStableFunc(merged.Containers, func(a, b corev1.Container) int { return place(a) - place(b) })
	return merged, nil
}
