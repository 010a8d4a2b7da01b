package settings

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func none(string) string { return "" }

func TestKubernetesThereAndBack(t *testing.T) {
	for name, k := range map[string]Kubernetes{
		"default": DefaultKubernetes(),
		"unused":  {Unused: true, PodStartTimeout: time.Second},
		"all set": {Kubeconfig: "/a b", Context: "c", Namespace: "n", PodSpec: "p", DefaultImage: "i:1", PodStartTimeout: time.Minute,
			AllowedImages: []*regexp.Regexp{regexp.MustCompile("^a\n,b$"), regexp.MustCompile("c")}, Labels: map[string]string{"a.b/c": "d"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := KubernetesFrom(k.Extra(), none)
			require.NoError(t, err)
			assert.Equal(t, k, got)
			variable, value, _ := strings.Cut(k.Env(), "=")
			got, err = KubernetesFrom(nil, func(name string) string {
				assert.Equal(t, variable, name)
				return value
			})
			require.NoError(t, err)
			assert.Equal(t, k, got)
		})
	}
}

func TestKubernetesFromNothing(t *testing.T) {
	got, err := KubernetesFrom(nil, none)
	require.NoError(t, err)
	assert.Equal(t, DefaultKubernetes(), got)
	_, err = KubernetesFrom(map[string]string{"kubernetes": `{"allowed-images": ["("]}`}, none)
	require.ErrorContains(t, err, "cannot make sense of the settings for jobs in pods")
}

// A job's own settings count, not those of the time when its worker was started.
func TestKubernetesOfAJobComeFirst(t *testing.T) {
	got, err := KubernetesFrom(Kubernetes{Namespace: "job"}.Extra(), func(string) string { return `{"namespace":"env"}` })
	require.NoError(t, err)
	assert.Equal(t, "job", got.Namespace)
}
