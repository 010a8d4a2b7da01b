//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// A job that can't be run fails with one line in its log, which names what is wrong; none of its commands runs, and the slot
// takes the next one.
func TestRequestsThatCantBeRun(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	s := h.start()
	ran := h.path("ran")
	commands := []object{{"directive": "touch " + ran}}
	for i, c := range []struct {
		name  string
		field object // on top of a good request
		line  string // in the job's log
	}{
		{"a path as job_id", object{"job_id": "../../escaped"}, `job id "../../escaped": it may hold`},
		{"another job's job_id", object{"job_id": "another"}, `job_id is "another"`},
		{"a number as job_id", object{"job_id": 5}, `job_id of the job request: it is a number where a text belongs`},
		{"a number as a name", object{"job_name": 5}, `job_name of the job request: it is a number where a text belongs`},
		{"an object as commands", object{"commands": object{}}, `commands of the job request: it is an object where a list belongs`},
		{"a text as a command", object{"commands": []string{"ls"}}, `commands of the job request: it is a text where an object belongs`},
		{"a number as a directive", object{"commands": []object{{"directive": 1}}}, `commands of the job request: directive is a number where a text belongs`},
		{"a list as an epilogue", object{"epilogue_always_commands": []any{[]any{}}}, `epilogue_always_commands of the job request`},
		{"a text as env_vars", object{"env_vars": "A=1"}, `env_vars of the job request`},
		{"a value that is no base64", object{"env_vars": []object{{"name": "GOOD", "value": "***"}}}, `env_vars[0] (GOOD): not base64`},
		{"a name with a dash", object{"env_vars": []object{{"name": "NO-NAME", "value": ""}}}, `env_vars[0]: "NO-NAME" can't be the name`},
		{"a name that is code", object{"env_vars": []object{{"name": "X=$(touch " + ran + ")", "value": ""}}}, `env_vars[0]: "X=$(touch`},
		{"an empty name", object{"env_vars": []object{{"value": ""}}}, `env_vars[0]: "" can't be the name`},
		{"a value with a NUL", object{"env_vars": []object{{"name": "NUL", "value": b64("a\x00b")}}}, `env_vars[0] (NUL): the value holds a NUL byte`},
		{"a file that is no base64", object{"files": []object{{"path": "a", "content": "***", "mode": "0600"}}}, `files[0] (a): not base64`},
		{"a mode that is no number", object{"files": []object{{"path": "a", "content": "", "mode": "rw"}}}, `files[0] (a): mode "rw" is no file mode`},
		{"a mode that is not octal", object{"files": []object{{"path": "a", "content": "", "mode": "0999"}}}, `files[0] (a): mode "0999" is no file mode`},
		{"a mode that is too much", object{"files": []object{{"path": "a", "content": "", "mode": "7777777"}}}, `files[0] (a): mode "7777777" is no file mode`},
		{"a number as a mode", object{"files": []object{{"path": "a", "content": "", "mode": 600}}}, `files of the job request: mode is a number where a text belongs`},
		{"a file without a path", object{"files": []object{{"content": ""}}}, `files[0]: "" can't be the path`},
		{"a key that is no base64", object{"ssh_public_keys": []string{"***"}}, `ssh_public_keys[0]: not base64`},
		{"an unknown executor", object{"executor": "carrier-pigeon"}, `executor "carrier-pigeon": no worker-carrier-pigeon in`},
		{"a path as executor", object{"executor": "../../bin/sh"}, `executor "../../bin/sh": no such name`},
		{"an executor that isn't allowed", object{"env_vars": []object{{"name": "SIGNALMAN_EXECUTOR", "value": b64("k8s")}}},
			`the job asks for executor "k8s" (SIGNALMAN_EXECUTOR), which job-executors of this agent doesn't list`},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := fmt.Sprintf("bad-%d", i)
			request := object{
				"commands": commands, "epilogue_always_commands": commands,
				"logger": object{"method": "push", "url": h.hub.LogURL(id), "token": "expired"},
			}
			for key, value := range c.field {
				request[key] = value
			}
			raw, err := json.Marshal(request)
			require.NoError(t, err)
			require.NoError(t, h.hub.SubmitRaw(id, raw))

			job := h.finished(id)
			assert.Equal(t, hub.ResultFailed, job.Result)
			assert.Equal(t, hubtest.EndedByAgent, job.EndedBy)
			log := h.transcript(id)
			require.Len(t, log, 5, "%q", log)
			assert.Contains(t, log[2], c.line)
			assert.Equal(t, 1, strings.Count(log[2], "\n"), "one line: %q", log[2])
			assert.True(t, strings.HasSuffix(log[2], "\n"), "%q", log[2])
			assert.Equal(t, []string{"job_started", "begin Starting the job", log[2], "end Starting the job: 1", "job_finished failed"}, log)
			h.checkLog(id)
		})
	}
	good := h.submit(hubtest.Request{Commands: []string{"echo good"}})
	assert.Equal(t, hub.ResultPassed, h.finished(good).Result)
	assert.NoFileExists(t, ran)
	assert.NoFileExists(t, h.path("escaped"))
	assert.NotContains(t, s.Log.String(), "panic")
}

// Where not even the log's address can be read, the agent's own log says why the job failed. What is no object may come from
// something on the way to the hub, and is asked for again for a while.
func TestRequestsWithoutALog(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}, "--concurrency", "6")
	ran := h.path("ran")
	cases := []struct{ payload, line string }{
		{`null`, "the job request is null"},
		{`[]`, "the job request is not a JSON object"},
		{`"text"`, "the job request is not a JSON object"},
		{`7`, "the job request is not a JSON object"},
		{`{"logger": "here", "commands": [{"directive": "touch ` + ran + `"}]}`, "logger of the job request: it is a text where an object belongs"},
		{`{"logger": {"url": 1}, "commands": [{"directive": "touch ` + ran + `"}]}`, "logger of the job request: url is a number where a text belongs"},
	}
	for i, c := range cases {
		require.NoError(t, h.hub.SubmitRaw(fmt.Sprintf("without-a-log-%d", i), []byte(c.payload)))
	}
	s := h.start()
	for i, c := range cases {
		id := fmt.Sprintf("without-a-log-%d", i)
		job := h.finished(id)
		assert.Equal(t, hub.ResultFailed, job.Result, c.payload)
		assert.Equal(t, hubtest.EndedByAgent, job.EndedBy, c.payload)
		s.saysOnce(id, c.line)
	}
	good := h.submit(hubtest.Request{Commands: []string{"echo good"}})
	assert.Equal(t, hub.ResultPassed, h.finished(good).Result)
	assert.NoFileExists(t, ran)
}

// What is no JSON may be something on the way to the hub: it is asked for again, but not for ever.
func TestRequestThatIsNoJSON(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	s := h.start()
	require.NoError(t, h.hub.SubmitRaw("no-json", []byte("commands: [ls]")))
	job := h.finished("no-json")
	assert.Equal(t, hub.ResultFailed, job.Result)
	assert.Equal(t, hubtest.EndedByAgent, job.EndedBy)
	assert.Greater(t, job.Fetches, 1)
	s.saysOnce("no-json", "cannot have the job's request", "it is no JSON")
	good := h.submit(hubtest.Request{Commands: []string{"echo good"}})
	assert.Equal(t, hub.ResultPassed, h.finished(good).Result)
}

// The hub itself names a job by a path.
func TestRunJobWithAPath(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	s := h.start()
	for i, id := range []string{"../../escaped", "/etc/passwd", "two words", "tab\tted", strings.Repeat("x", 500)} {
		require.NoError(t, h.hub.SubmitRaw(id, []byte(`{"commands": [{"directive": "touch `+h.path("ran")+`"}]}`)))
		job := h.finished(id)
		assert.Equal(t, hub.ResultFailed, job.Result, id)
		assert.Equal(t, hubtest.EndedByAgent, job.EndedBy, id)
		assert.Zero(t, job.Fetches, "the id would be part of the request's path")
		eventually(t, "one line for each", func() bool {
			return len(s.logLines("cannot have the job's request", "it may hold letters, digits")) == i+1
		})
	}
	good := h.submit(hubtest.Request{Commands: []string{"echo good"}})
	assert.Equal(t, hub.ResultPassed, h.finished(good).Result)
	assert.NoFileExists(t, h.path("ran"))
	assert.NoFileExists(t, h.path("escaped"))
	folders, err := os.ReadDir(h.path("state/jobs"))
	require.NoError(t, err)
	assert.Len(t, folders, 6)
	top, err := os.ReadDir(h.dir)
	require.NoError(t, err)
	assert.Len(t, top, 2, "home and state, nothing else")
}

// The first answer is lost, and the second one has no secrets any more: the job says so and runs nothing.
func TestRequestThatWasLost(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]hubtest.Request{
		"with a secret":           {Env: []hubtest.EnvVar{{Name: "SECRET", Value: "s3cret"}}},
		"with a file":             {Files: []hubtest.File{{Path: "file", Content: "content", Mode: "0600"}}},
		"with a log's token only": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, hubtest.Options{})
			fault := h.hub.AddFault(hubtest.Fault{Endpoint: hubtest.GetJob, Kind: hubtest.DropAnswer, Times: 2})
			h.start()
			ran := h.path("ran")
			request.Commands, request.EpilogueAlways = []string{"touch " + ran}, []string{"touch " + ran}
			id := h.submit(request)
			job := h.finished(id)
			require.NotZero(t, fault.Hits())
			assert.Equal(t, hub.ResultFailed, job.Result)
			log := h.transcript(id)
			require.Len(t, log, 5, "%q", log)
			assert.Contains(t, log[2], hubtest.Sanitized)
			assert.Contains(t, log[2], "that answer was lost; run the job again\n")
			assert.NoFileExists(t, ran)
			h.delivered(id)

			good := h.submit(hubtest.Request{Commands: []string{"echo good"}})
			assert.Equal(t, hub.ResultPassed, h.finished(good).Result)
			assert.NoFileExists(t, filepath.Join(h.jobDir(id), "request.json"))
		})
	}
}
