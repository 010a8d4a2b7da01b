package settings

import (
	"encoding/json"
	"fmt"
	"regexp"
	"time"
)

// DefaultPodStartTimeout is how long a pod may take to start where nothing is set.
const DefaultPodStartTimeout = 5 * time.Minute

// Kubernetes is what the host's owner has set for jobs in pods.
type Kubernetes struct {
	// Unused tells that no job of this agent goes to a pod, so that the cluster isn't asked for what such jobs have left.
	Unused bool `json:"unused,omitempty"`
	// Kubeconfig (an absolute path), Context and Namespace say where the pods go; what is empty is found elsewhere.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	Context    string `json:"context,omitempty"`
	Namespace  string `json:"namespace,omitempty"`
	// PodSpec is the name of a ConfigMap, or empty.
	PodSpec string `json:"pod-spec,omitempty"`
	// AllowedImages are regular expressions of the images that jobs may use; none: all.
	AllowedImages []*regexp.Regexp `json:"allowed-images,omitempty"`
	// DefaultImage is that of jobs which name none.
	DefaultImage string `json:"default-image,omitempty"`
	// Labels of all that is made in the cluster.
	Labels          map[string]string `json:"labels,omitempty"`
	PodStartTimeout time.Duration     `json:"pod-start-timeout,omitempty"`
}

// DefaultKubernetes is what holds where nothing is set.
func DefaultKubernetes() Kubernetes { return Kubernetes{PodStartTimeout: DefaultPodStartTimeout} }

const (
	// kubernetesKey is where Extra has all of it.
	kubernetesKey = "kubernetes"
	// kubernetesVariable has it for a worker that is asked without a job.
	kubernetesVariable = "SIGNALMAN_KUBERNETES"
)

// Extra is for protocol.Settings.
func (k Kubernetes) Extra() map[string]string { return map[string]string{kubernetesKey: k.text()} }

// Env is for a worker's environment, NAME=value: a worker that is asked what is left of jobs has no settings of a job.
func (k Kubernetes) Env() string { return kubernetesVariable + "=" + k.text() }

func (k Kubernetes) text() string {
	text, _ := json.Marshal(k) // texts, a number, and lists and maps of texts can always be marshalled
	return string(text)
}

// KubernetesFrom reads what Extra made or, where that isn't there, what Env made; getenv looks a variable up. What isn't there is as in
// DefaultKubernetes.
func KubernetesFrom(extra map[string]string, getenv func(string) string) (Kubernetes, error) {
	k := DefaultKubernetes()
	text, ok := extra[kubernetesKey]
	if !ok {
		text = getenv(kubernetesVariable)
	}
	if text != "" {
		if err := json.Unmarshal([]byte(text), &k); err != nil {
			return k, fmt.Errorf("cannot make sense of the settings for jobs in pods: %w", err)
		}
	}
	return k, nil
}
