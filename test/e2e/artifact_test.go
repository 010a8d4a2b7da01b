//go:build unix

package e2e

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

const artifactToken = "the-token-for-artifacts"

// withArtifacts gives the host an artifact command: it keeps what it pushes in the host's folder, then does what the script says.
func (h *host) withArtifacts(script string) {
	h.t.Helper()
	bin := h.path("bin")
	require.NoError(h.t, os.Mkdir(bin, 0o755))
	script = "#!/bin/sh\ncd '" + h.dir + "'\necho \"$@\" >>pushes\ncp \"$3\" pushed\n" + script + "\n"
	require.NoError(h.t, os.WriteFile(filepath.Join(bin, "artifact"), []byte(script), 0o755))
	h.env = append(h.env, "PATH="+bin+":"+os.Getenv("PATH"))
}

func artifactJob(commands ...string) hubtest.Request {
	return hubtest.Request{Commands: commands, Env: []hubtest.EnvVar{
		{Name: "SEMAPHORE_ARTIFACT_TOKEN", Value: artifactToken}, {Name: "SEMAPHORE_ORGANIZATION_URL", Value: "https://org.example"},
	}}
}

func TestLogIsPushed(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}, "--upload-job-logs", "always")
	h.withArtifacts("until [ -e gate ]; do sleep 0.02; done; test \"$SEMAPHORE_ARTIFACT_TOKEN\" = " + artifactToken)
	s := h.start()
	id := h.submit(artifactJob("printf 'ä\\tb'", "echo $SEMAPHORE_ARTIFACT_TOKEN", "exit 7"))
	eventually(t, "the log is pushed", func() bool { return h.read("pushes") != "" })
	job, _ := h.hub.Job(id)
	require.Equal(t, hubtest.JobRunning, job.State, "the result comes after the log")
	h.write("gate", "")
	assert.Equal(t, hub.ResultFailed, h.finished(id).Result)
	assert.Equal(t, "push job "+filepath.Join(h.jobDir(id), "log.txt")+" -d agent/job_logs.txt\n", h.read("pushes"))
	assert.Contains(t, h.read("pushed"), "printf 'ä\\tb'\nä\tb\necho $SEMAPHORE_ARTIFACT_TOKEN\n***\n")
	assert.Equal(t, h.read("pushed"), h.cliSays("logs", "--plain", id))
	h.delivered(id)
	s.saysOnce("the job's log is among its artifacts", id)
	assert.NotContains(t, s.Log.String(), artifactToken)
	assert.NoFileExists(t, filepath.Join(h.jobDir(id), "log.txt"))
}

// What goes wrong with the log is one line in the agent's own log, and nothing for the job.
func TestLogIsNotPushed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		script, want string
		job          hubtest.Request
	}{
		"no command": {want: "there is no artifact command in PATH", job: artifactJob("true")},
		"no token":   {script: "true", want: "the job has no SEMAPHORE_ARTIFACT_TOKEN", job: hubtest.Request{Commands: []string{"true"}}},
		"it fails":   {script: "echo cannot push with $SEMAPHORE_ARTIFACT_TOKEN >&2; exit 4", want: "exit status 4: cannot push with ***", job: artifactJob("true")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, hubtest.Options{}, "--upload-job-logs", "always")
			if test.script != "" {
				h.withArtifacts(test.script)
			}
			s := h.start()
			id := h.submit(test.job)
			assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
			h.delivered(id)
			s.saysOnce("cannot push the job's log", test.want)
			assert.NotContains(t, s.Log.String(), artifactToken)
		})
	}
}

// Only a log that the hub took a part of is pushed, whole, and compressed if it is long.
func TestTrimmedLogIsPushed(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{MaxLogSize: 200_000}, "--upload-job-logs", "when-trimmed")
	h.withArtifacts("")
	h.env = append(h.env, "SEMAPHORE_AGENT_LOGS_COMPRESSION_SIZE=1MB")
	h.start()
	short := h.submit(artifactJob("echo short"))
	assert.Equal(t, hub.ResultPassed, h.finished(short).Result)
	assert.Empty(t, h.read("pushes"))
	long := h.submit(artifactJob("for i in 1 2 3 4 5 6; do seq 100000; sleep 0.7; done"))
	assert.Equal(t, hub.ResultPassed, h.finished(long).Result)
	assert.Equal(t, "push job "+filepath.Join(h.jobDir(long), "log.txt.gz")+" -d agent/job_logs.txt.gz\n", h.read("pushes"))
	r, err := gzip.NewReader(strings.NewReader(h.read("pushed")))
	require.NoError(t, err)
	text, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.True(t, h.cliSays("logs", "--plain", long) == string(text), "the artifact is the log as text")
	assert.Equal(t, 6, strings.Count(string(text), "\n100000\n"))
}

// A supervisor that is killed while it pushes leaves that to the next one; what was pushed isn't pushed again.
func TestPushSurvivesTheSupervisor(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}, "--upload-job-logs", "always")
	h.withArtifacts("until [ -e gate ]; do sleep 0.02; done")
	s := h.start()
	id := h.submit(artifactJob("echo hello"))
	eventually(t, "the log is pushed", func() bool { return h.read("pushes") != "" })
	s.kill()
	rule := h.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Status: 500, Match: inState(hub.StateFinishedJob)})
	h.write("gate", "")
	s = h.start()
	require.NoError(t, rule.WaitHits(h.ctx(), 1))
	assert.Equal(t, 2, strings.Count(h.read("pushes"), "\n"))
	s.kill()
	s = h.start()
	require.NoError(t, rule.WaitHits(h.ctx(), 3))
	rule.Clear()
	assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
	assert.Equal(t, 2, strings.Count(h.read("pushes"), "\n"))
	assert.Empty(t, s.logLines("among its artifacts"))
	h.delivered(id)
}
