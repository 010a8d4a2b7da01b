//go:build unix

package e2e

import (
	"encoding/base64"
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

type object = map[string]any

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// submitJSON hands over a request that hubtest.Request can't say.
func (h *host) submitJSON(payload object) string {
	h.t.Helper()
	raw, err := json.Marshal(payload)
	require.NoError(h.t, err)
	id, err := h.hub.SubmitJSON(raw)
	require.NoError(h.t, err)
	return id
}

// All sections of a job, in the order and the words of the hub's protocol.
func TestEventsOfAJob(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.args = append(h.args,
		"--pre-job-hook-path", h.write("pre.sh", "echo pre-hook in $0, TOLD=$TOLD\n"),
		"--post-job-hook-path", h.write("post.sh", "echo post-hook, the job is $SEMAPHORE_JOB_RESULT\nexit 9\n"),
		"--env-vars", "OPERATOR=host=1,TOLD=by-the-operator")
	h.config("[secrets]\nfiles = []\n") // this job prints its files
	h.start()
	absolute := h.path("deep/er/absolute.txt")
	id := h.submitJSON(object{
		"env_vars": []object{
			{"name": "TOLD", "value": b64("first")},
			{"name": "ZULU", "value": b64("two\nlines 'quoted' \"twice\" $HOME `id`")},
			{"name": "EMPTY", "value": nil},
			{"name": "TOLD", "value": b64("last one wins")},
		},
		"files": []object{
			{"path": "relative.txt", "content": b64("relative\n"), "mode": "0600"},
			{"path": "~/.ssh/id_rsa", "content": b64("key\n"), "mode": "400"},
			{"path": absolute, "content": b64("absolute\n"), "mode": "0755"},
		},
		"commands": []object{
			{"directive": "echo \"$TOLD|$ZULU|$EMPTY|$OPERATOR\""},
			{"directive": "cat relative.txt ~/.ssh/id_rsa " + absolute + "\npwd\nstat -c %a relative.txt ~/.ssh/id_rsa " + absolute, "alias": "Show the files"},
			{"directive": "cd /; false || (exit 7)"},
			{"directive": "echo never"},
		},
		"epilogue_always_commands":  []object{{"directive": "pwd; echo $SEMAPHORE_JOB_RESULT"}, {"directive": "false"}, {"directive": "echo never"}},
		"epilogue_on_pass_commands": []object{{"directive": "echo never"}},
		"epilogue_on_fail_commands": []object{{"directive": "echo on fail", "alias": "Tidy up"}},
		"unknown":                   object{"field": 1},
		"compose":                   nil,
		"ssh_public_keys":           nil,
	})
	job := h.finished(id)

	home := h.path("home")
	assert.Equal(t, hub.ResultFailed, job.Result)
	assert.Equal(t, []string{
		"job_started",
		"begin Exporting environment variables",
		"output Exporting EMPTY\nExporting OPERATOR\nExporting TOLD\nExporting ZULU\n",
		"end Exporting environment variables: 0",
		"begin Injecting Files",
		"output Injecting " + home + "/relative.txt with file mode 0600\n" +
			"Injecting " + home + "/.ssh/id_rsa with file mode 0400\n" +
			"Injecting " + absolute + " with file mode 0755\n",
		"end Injecting Files: 0",
		"begin Running the pre-job hook configured in the agent",
		"output pre-hook in " + h.path("pre.sh") + ", TOLD=last one wins\n",
		"end Running the pre-job hook configured in the agent: 0",
		"begin echo \"$TOLD|$ZULU|$EMPTY|$OPERATOR\"",
		"output last one wins|two\nlines 'quoted' \"twice\" $HOME `id`||host=1\n",
		"end echo \"$TOLD|$ZULU|$EMPTY|$OPERATOR\": 0",
		"begin Show the files",
		"output Running: cat relative.txt ~/.ssh/id_rsa " + absolute + "\npwd\nstat -c %a relative.txt ~/.ssh/id_rsa " + absolute +
			"\nrelative\nkey\nabsolute\n" + home + "\n600\n400\n755\n",
		"end Show the files: 0",
		"begin cd /; false || (exit 7)",
		"end cd /; false || (exit 7): 7",
		"begin Exporting environment variables",
		"output Exporting SEMAPHORE_JOB_RESULT\n",
		"end Exporting environment variables: 0",
		"begin pwd; echo $SEMAPHORE_JOB_RESULT",
		"output /\nfailed\n",
		"end pwd; echo $SEMAPHORE_JOB_RESULT: 0",
		"begin false",
		"end false: 1",
		"begin Tidy up",
		"output Running: echo on fail\non fail\n",
		"end Tidy up: 0",
		"begin Running the post-job hook configured in the agent",
		"output post-hook, the job is failed\n",
		"end Running the post-job hook configured in the agent: 9",
		"job_finished failed",
	}, h.transcript(id))
	h.delivered(id)

	for _, path := range []string{filepath.Join(home, "relative.txt"), filepath.Join(home, ".ssh/id_rsa"), absolute} {
		assert.NoFileExists(t, path, "a job's files go with it")
	}
}

// A passed job, and one that ends itself early; the same slot takes one after the other.
func TestEventsOfJobsThatPass(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	h.start()
	passed := h.submit(hubtest.Request{
		Commands: []string{"true"}, EpilogueAlways: []string{"echo always"},
		EpilogueOnPass: []string{"echo on pass"}, EpilogueOnFail: []string{"echo never"},
	})
	early := h.submit(hubtest.Request{
		Commands: []string{"export SEMAPHORE_JOB_RESULT=passed", "return 130", "echo never"}, EpilogueOnPass: []string{"echo on pass"},
	})
	ended := h.submit(hubtest.Request{Commands: []string{"return 130"}, EpilogueAlways: []string{"echo never"}})

	assert.Equal(t, hub.ResultPassed, h.finished(passed).Result)
	assert.Equal(t, []string{
		"job_started",
		"begin Exporting environment variables", "end Exporting environment variables: 0",
		"begin Injecting Files", "end Injecting Files: 0",
		"begin true", "end true: 0",
		"begin Exporting environment variables", "output Exporting SEMAPHORE_JOB_RESULT\n", "end Exporting environment variables: 0",
		"begin echo always", "output always\n", "end echo always: 0",
		"begin echo on pass", "output on pass\n", "end echo on pass: 0",
		"job_finished passed",
	}, h.transcript(passed))
	h.delivered(passed)

	assert.Equal(t, hub.ResultPassed, h.finished(early).Result)
	assert.Equal(t, "SEMAPHORE_JOB_RESULT=passed\nExporting SEMAPHORE_JOB_RESULT\non pass\n", h.outputOf(early))
	assert.Contains(t, h.transcript(early), "begin Checking job result")
	h.delivered(early)

	assert.Equal(t, hub.ResultStopped, h.finished(ended).Result)
	assert.NotContains(t, h.outputOf(ended), "never")
	h.delivered(ended)
}

// A sourced pre-job hook can prepare the job's shell; one that fails the job leaves it no command.
func TestSourcedPreJobHook(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}, "--source-pre-job-hook", "--fail-on-pre-job-hook-error")
	h.args = append(h.args, "--pre-job-hook-path", h.write("pre.sh", "export FROM_HOOK=yes\n[ \"$BREAK\" != yes ]\n"))
	h.start()
	good := h.submit(hubtest.Request{Commands: []string{"echo $FROM_HOOK"}})
	bad := h.submit(hubtest.Request{
		Env: []hubtest.EnvVar{{Name: "BREAK", Value: "yes"}}, Commands: []string{"echo never"}, EpilogueOnFail: []string{"echo on fail"},
	})
	assert.Equal(t, hub.ResultPassed, h.finished(good).Result)
	assert.Contains(t, h.outputOf(good), "yes\n")
	assert.Equal(t, hub.ResultFailed, h.finished(bad).Result)
	assert.Equal(t, "Exporting BREAK\nExporting SEMAPHORE_JOB_RESULT\non fail\n", h.outputOf(bad))
}
