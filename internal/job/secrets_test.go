//go:build unix

package job

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/shared/protocol"
)

// marked are the names of the variables and files of a job that are marked.
func marked(job *protocol.Job) []string {
	var out []string
	add := func(env []protocol.EnvVar, files []protocol.File) {
		for _, v := range env {
			if v.Secret {
				out = append(out, v.Name)
			}
		}
		for _, f := range files {
			if f.Secret {
				out = append(out, f.Path)
			}
		}
	}
	add(job.Env, job.Files)
	if job.Compose != nil {
		for _, c := range job.Compose.Containers {
			add(c.Env, c.Files)
		}
		for _, c := range job.Compose.ImagePullCredentials {
			add(c.Env, c.Files)
		}
	}
	return out
}

func vars(names ...string) []protocol.EnvVar {
	var out []protocol.EnvVar
	for _, n := range names {
		out = append(out, protocol.EnvVar{Name: n, Value: "value of " + n})
	}
	return out
}

func paths(paths ...string) []protocol.File {
	var out []protocol.File
	for _, p := range paths {
		out = append(out, protocol.File{Path: p, Content: []byte("content")})
	}
	return out
}

func TestMarkSecrets(t *testing.T) {
	for name, test := range map[string]struct {
		secrets Secrets
		job     protocol.Job
		want    []string
	}{
		"names and globs": {
			secrets: Secrets{EnvVars: []string{"*_TOKEN", "EXACT", "A?"}},
			job:     protocol.Job{Env: vars("MY_TOKEN", "TOKEN", "MY_TOKENS", "EXACT", "EXACTLY", "AB", "ABC", "my_token")},
			want:    []string{"MY_TOKEN", "EXACT", "AB"},
		},
		"what hubs send": {
			job: protocol.Job{
				Env: append(vars("CI", "SEMAPHORE_ARTIFACT_TOKEN", "SEMAPHORE_OIDC_TOKEN", "SEMAPHORE_CACHE_PASSWORD", "SEMAPHORE_CACHE_URL"),
					protocol.EnvVar{Name: "SEMAPHORE_CACHE_PRIVATE_KEY_PATH", Value: "/home/ci/.ssh/cache*key"}),
				Files: paths(".ssh/id_rsa", ".ssh/id_rsa.pub", ".ssh/cache*key", ".ssh/cachekey", "/home/ci/.ssh/semaphore_cache_key"),
			},
			want: []string{
				"SEMAPHORE_ARTIFACT_TOKEN", "SEMAPHORE_OIDC_TOKEN", "SEMAPHORE_CACHE_PASSWORD",
				".ssh/id_rsa", ".ssh/cache*key", "/home/ci/.ssh/semaphore_cache_key",
			},
		},
		"all files": {
			secrets: Secrets{Files: []string{"*"}},
			job:     protocol.Job{Files: paths("a", "/b/c", "~/.d/e")},
			want:    []string{"a", "/b/c", "~/.d/e"},
		},
		"files by path and last element": {
			secrets: Secrets{Files: []string{"*.pem", "/etc/app/*", "~/.netrc"}},
			job:     protocol.Job{Files: paths("x.pem", "/deep/er/y.pem", "/etc/app/config", "/etc/app/sub/config", "~/.netrc", ".netrc", "/root/.netrc")},
			want:    []string{"x.pem", "/deep/er/y.pem", "/etc/app/config", "~/.netrc"},
		},
		"marked before": {
			job:  protocol.Job{Env: []protocol.EnvVar{{Name: "A", Secret: true}}, Files: []protocol.File{{Path: "b", Secret: true}}},
			want: []string{"A", "b"},
		},
		"containers": {
			secrets: Secrets{EnvVars: []string{"[MX]*_TOKEN"}, Files: []string{"c.pem"}},
			job: protocol.Job{Compose: &protocol.Compose{
				Containers: []protocol.Container{{Env: vars("PLAIN", "MY_TOKEN"), Files: paths("/c.pem", "/d")}, {Env: vars("X_TOKEN")}},
				ImagePullCredentials: []protocol.PullCredentials{{
					Env: vars("DOCKER_CREDENTIAL_TYPE", "DOCKERHUB_PASSWORD", "DOCKER_PASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"), Files: paths("/tmp/gcr/keyfile.json"),
				}},
			}},
			want: []string{"MY_TOKEN", "/c.pem", "X_TOKEN", "DOCKERHUB_PASSWORD", "DOCKER_PASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "/tmp/gcr/keyfile.json"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := marked(&test.job)
			assert.Equal(t, test.want, marked(test.secrets.mark(&test.job)))
			assert.Equal(t, before, marked(&test.job), "the job itself stays as it is")
		})
	}
}

// The agent's own variables and those of its environment are secrets like the job's; what isn't masked is told once, without its value.
func TestSecretsOfAJob(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	w.settings.Logger = hclog.New(&hclog.LoggerOptions{Output: &log})
	w.settings.Secrets = Secrets{EnvVars: []string{"*_TOKEN"}, Files: []string{"*"}}
	w.settings.BaseEnv = append(w.settings.BaseEnv, protocol.EnvVar{Name: "BASE_TOKEN", Value: "base-secret"})
	w.settings.Env = []protocol.EnvVar{{Name: "AGENT_TOKEN", Value: "agent-secret"}, {Name: "SHORT_TOKEN", Value: "sh0rt"}}
	command := `echo "$BASE_TOKEN $AGENT_TOKEN $JOB_TOKEN $SHORT_TOKEN $OPEN"; cat file`
	req := w.request(command)
	req.Job.Env = []protocol.EnvVar{{Name: "JOB_TOKEN", Value: "job-secret"}, {Name: "SHORT_TOKEN", Value: "sh0rt"}, {Name: "EMPTY_TOKEN"}, {Name: "OPEN", Value: "open"}}
	req.Job.Files = []protocol.File{{Path: "file", Content: []byte("the-file-secret\n"), Mode: 0o600}}
	o := w.await(w.run(w.ctx(), req, nil))
	require.NoError(t, o.err)
	require.Equal(t, protocol.Passed, o.result)
	assert.Equal(t, "*** *** *** sh0rt open\n***\n", w.requireLog(protocol.Passed)[command])
	assert.NotContains(t, w.log(), "-secret")
	assert.Equal(t, 1, strings.Count(log.String(), "not masked in the log: its value has fewer than 6 characters"), log.String())
	assert.Contains(t, log.String(), `names=["SHORT_TOKEN"]`)
	assert.NotContains(t, log.String(), "sh0rt")
	assert.NotContains(t, log.String(), "EMPTY_TOKEN")
}

// What the supervisor writes itself is masked as well.
func TestClosedLogIsMasked(t *testing.T) {
	w := newWorld(t)
	w.settings.Secrets = Secrets{EnvVars: []string{"*_TOKEN"}}
	w.settings.JobExecutors = []string{"other"}
	req := w.request("true")
	req.Job.Env = []protocol.EnvVar{{Name: executorVariable, Value: "by-mistake-a-secret"}, {Name: "MY_TOKEN", Value: "a-secret"}}
	o := w.await(w.run(w.ctx(), req, nil))
	require.NoError(t, o.err)
	assert.Equal(t, protocol.Failed, o.result)
	assert.Contains(t, w.log(), "by-mistake-***")
	assert.NotContains(t, w.log(), "a-secret")
}
