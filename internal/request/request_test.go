package request

import (
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/shared/protocol"
)

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func TestLooksLikeOne(t *testing.T) {
	for raw, want := range map[string]bool{
		`{"job_id": "x"}`: true, `{"job_id": 5}`: true, `{"commands": []}`: true, `{"logger": {}}`: true, `{"commands": null, "x": 1}`: true,
		`null`: false, `[]`: false, `5`: false, `{}`: false, `{"error": "busy"}`: false, `<html>`: false, ``: false,
	} {
		assert.Equal(t, want, LooksLikeOne([]byte(raw)), raw)
	}
}

func TestParse(t *testing.T) {
	raw := `{
		"job_id": "j-1", "job_name": "build", "executor": "dockercompose", "unknown": {"x": [1]},
		"commands": [{"directive": "make", "alias": "Build"}, {"directive": "make test"}],
		"epilogue_always_commands": [{"directive": "a"}], "epilogue_on_pass_commands": [{"directive": "p"}],
		"epilogue_on_fail_commands": [{"directive": "f"}],
		"env_vars": [{"name": "A", "value": "` + b64("1\n2") + `"}, {"name": "NONE", "value": null}, {"name": "A", "value": "` + b64("3") + `"}],
		"files": [{"path": "~/.ssh/id_rsa", "content": "` + b64("key") + `", "mode": "0600"}, {"path": "x", "content": "", "mode": ""}],
		"ssh_public_keys": ["` + b64("ssh-rsa x") + `"],
		"compose": {
			"containers": [{"name": "main", "image": "i:1", "command": "c", "entrypoint": "e", "user": "u",
				"env_vars": [{"name": "B", "value": "` + b64("b") + `"}], "files": [{"path": "/f", "content": "` + b64("f") + `", "mode": "755"}]}],
			"image_pull_credentials": [{"env_vars": [{"name": "DOCKER_CREDENTIAL_TYPE", "value": "` + b64("GCR") + `"}], "files": null}],
			"host_setup_commands": [{"directive": "h"}]},
		"callbacks": {"finished": "u", "token": "t"},
		"logger": {"method": "push", "url": "http://logs", "token": "secret", "max_size_in_bytes": 16777216}
	}`
	req, logger, err := Parse([]byte(raw), "j-1")
	require.NoError(t, err)
	assert.Equal(t, Logger{Method: "push", URL: "http://logs", Token: "secret", MaxSizeBytes: 16 << 20}, logger)
	assert.Equal(t, &Request{
		Executor: "dockercompose", Logger: logger,
		Job: &protocol.Job{
			ID: "j-1", Name: "build",
			Commands:       []protocol.Command{{Directive: "make", Alias: "Build"}, {Directive: "make test"}},
			EpilogueAlways: []protocol.Command{{Directive: "a"}},
			EpilogueOnPass: []protocol.Command{{Directive: "p"}},
			EpilogueOnFail: []protocol.Command{{Directive: "f"}},
			Env:            []protocol.EnvVar{{Name: "A", Value: "1\n2"}, {Name: "NONE"}, {Name: "A", Value: "3"}},
			Files: []protocol.File{
				{Path: "~/.ssh/id_rsa", Content: []byte("key"), Mode: 0o600}, {Path: "x", Content: []byte{}, Mode: 0o644},
			},
			SSHPublicKeys: []string{"ssh-rsa x"},
			Compose: &protocol.Compose{
				Containers: []protocol.Container{{
					Name: "main", Image: "i:1", Command: "c", Entrypoint: "e", User: "u",
					Env:   []protocol.EnvVar{{Name: "B", Value: "b"}},
					Files: []protocol.File{{Path: "/f", Content: []byte("f"), Mode: 0o755}},
				}},
				ImagePullCredentials: []protocol.PullCredentials{{Env: []protocol.EnvVar{{Name: "DOCKER_CREDENTIAL_TYPE", Value: "GCR"}}}},
				HostSetupCommands:    []protocol.Command{{Directive: "h"}},
			},
		},
	}, req)
}

// Any field may be missing or null.
// An object from somewhere else must not pass as a job that has nothing to do.
func TestParseOfSomethingElse(t *testing.T) {
	for _, raw := range []string{`{}`, `{"error":"not now"}`} {
		_, _, err := Parse([]byte(raw), "j")
		require.ErrorContains(t, err, "it is something else's answer")
	}
}

func TestParseOfLittle(t *testing.T) {
	want := &Request{Executor: "shell", Job: &protocol.Job{ID: "j"}}
	nulls := map[string]any{}
	for _, name := range []string{
		"job_id", "job_name", "executor", "commands", "epilogue_always_commands", "epilogue_on_pass_commands",
		"epilogue_on_fail_commands", "env_vars", "files", "ssh_public_keys", "compose", "callbacks", "logger",
	} {
		nulls[name] = nil
	}
	allNull, err := json.Marshal(nulls)
	require.NoError(t, err)
	for _, raw := range []string{
		` {"job_id":""} `, string(allNull),
		`{"compose":{}, "commands":[], "logger":{}}`,
		`{"commands":null,"compose":{"containers":null,"image_pull_credentials":null,"host_setup_commands":[]}}`,
		`{"logger":{"method":null,"url":null,"token":null,"max_size_in_bytes":null}}`,
	} {
		req, logger, err := Parse([]byte(raw), "j")
		require.NoError(t, err, raw)
		assert.Equal(t, want, req, raw)
		assert.Zero(t, logger)
	}
	req, _, err := Parse([]byte(`{"commands":[null, {"directive":null,"alias":null}],"compose":{"containers":[null]}}`), "j")
	require.NoError(t, err)
	assert.Len(t, req.Job.Commands, 2)
	assert.Len(t, req.Job.Compose.Containers, 1)
}

// Every bad input gives one clear line that names the field.
func TestBadRequests(t *testing.T) {
	for raw, want := range map[string]string{
		``:           "not a JSON object",
		`nonsense`:   "not a JSON object",
		`{"a":1} x`:  "not a JSON object",
		`null`:       "the job request is null",
		`[]`:         "not a JSON object: it is a list where an object belongs",
		`"text"`:     "not a JSON object: it is a text where an object belongs",
		`1`:          "not a JSON object: it is a number where an object belongs",
		"{\"a\x00\"": "not a JSON object",

		`{"job_id":5}`:                         "job_id of the job request: it is a number where a text belongs",
		`{"job_name":[]}`:                      "job_name of the job request: it is a list where a text belongs",
		`{"executor":true}`:                    "executor of the job request: it is true or false where a text belongs",
		`{"commands":{}}`:                      "commands of the job request: it is an object where a list belongs",
		`{"commands":["make"]}`:                "commands of the job request: it is a text where an object belongs",
		`{"commands":[{"directive":1}]}`:       "commands of the job request: directive is a number where a text belongs",
		`{"commands":[{"alias":{}}]}`:          "alias is an object where a text belongs",
		`{"epilogue_always_commands":1}`:       "epilogue_always_commands of",
		`{"epilogue_on_pass_commands":1}`:      "epilogue_on_pass_commands of",
		`{"epilogue_on_fail_commands":1}`:      "epilogue_on_fail_commands of",
		`{"env_vars":"A=1"}`:                   "env_vars of the job request: it is a text where a list belongs",
		`{"env_vars":[{"name":1}]}`:            "env_vars of the job request: name is a number",
		`{"env_vars":[{"value":1}]}`:           "env_vars of the job request: value is a number",
		`{"files":1}`:                          "files of the job request",
		`{"files":[{"mode":420}]}`:             "mode is a number where a text belongs",
		`{"ssh_public_keys":"x"}`:              "ssh_public_keys of the job request: it is a text where a list belongs",
		`{"compose":[]}`:                       "compose of the job request: it is a list where an object belongs",
		`{"compose":{"containers":{}}}`:        "containers is an object where a list belongs",
		`{"compose":{"containers":[1]}}`:       "containers is a number where an object belongs",
		`{"logger":"x"}`:                       "logger of the job request: it is a text where an object belongs",
		`{"logger":{"max_size_in_bytes":""}}`:  "logger of the job request: max_size_in_bytes is a text where a number belongs",
		`{"logger":{"max_size_in_bytes":1.5}}`: "max_size_in_bytes is a number where a whole number",
		`{"logger":{"max_size_in_bytes":1` + strings.Repeat("0", 5000) + `}}`: "max_size_in_bytes is a number where",

		`{"job_id":"other"}`:                            `job_id is "other", but job "j" was asked for`,
		`{"job_id":"../../etc"}`:                        `job id "../../etc"`,
		`{"job_id":"a\nb"}`:                             `job id "a\nb"`,
		`{"job_id":"` + strings.Repeat("x", 200) + `"}`: "up to 128",

		`{"env_vars":[{"name":"OK"},{"name":"","value":""}]}`: `env_vars[1]: "" can't be the name`,
		`{"env_vars":[null]}`:                                              `env_vars[0]`,
		`{"env_vars":[{"name":"1A"}]}`:                                     `env_vars[0]: "1A" can't be the name`,
		`{"env_vars":[{"name":"A-B"}]}`:                                    `"A-B" can't be the name`,
		`{"env_vars":[{"name":"A=B"}]}`:                                    `"A=B" can't be the name`,
		`{"env_vars":[{"name":"A\nB"}]}`:                                   `"A\nB" can't be the name`,
		`{"env_vars":[{"name":"A\n"}]}`:                                    `"A\n" can't be the name`,
		`{"env_vars":[{"name":"$(x)"}]}`:                                   `can't be the name`,
		`{"env_vars":[{"name":"A","value":"%%%"}]}`:                        `env_vars[0] (A): not base64`,
		`{"env_vars":[{"name":"A","value":"YQ"}]}`:                         `env_vars[0] (A): not base64`,
		`{"env_vars":[{"name":"A","value":"YQBi"}]}`:                       `env_vars[0] (A): the value holds a NUL byte`,
		`{"env_vars":[{"name":"A","value":"{SANITIZED}"}]}`:                `env_vars[0] (A): the hub has replaced it`,
		`{"env_vars":[{"name":"A","value":"` + b64("{SANITIZED}") + `"}]}`: `env_vars[0] (A): the hub has replaced it`,

		`{"files":[{"path":"","content":""}]}`:                                                      `files[0]: "" can't be the path`,
		`{"files":[null]}`:                                                                          `files[0]`,
		`{"files":[{"path":"a\u0000b"}]}`:                                                           `files[0]: "a\x00b" can't be the path`,
		`{"files":[{"path":"/a","content":"%"}]}`:                                                   `files[0] (/a): not base64`,
		`{"files":[{"path":"/a\nb","content":"%"}]}`:                                                `files[0] ("/a\nb"): not base64`,
		`{"files":[{"path":"/a","mode":"0999"}]}`:                                                   `files[0] (/a): mode "0999" is no file mode`,
		`{"files":[{"path":"/a","mode":"rw"}]}`:                                                     `mode "rw" is no file mode`,
		`{"files":[{"path":"/a","mode":"-1"}]}`:                                                     `mode "-1"`,
		`{"files":[{"path":"/a","mode":"01777"}]}`:                                                  `mode "01777"`,
		`{"files":[{"path":"/a","mode":"4755"}]}`:                                                   `mode "4755"`,
		`{"files":[{"path":"/a","mode":" 644"}]}`:                                                   `mode " 644"`,
		`{"files":[{"path":"/a","content":"{SANITIZED}"}]}`:                                         `files[0] (/a): the hub has replaced it`,
		`{"ssh_public_keys":["%"]}`:                                                                 `ssh_public_keys[0]: not base64`,
		`{"ssh_public_keys":["{SANITIZED}"]}`:                                                       `ssh_public_keys[0]: the hub has replaced it`,
		`{"callbacks":{"token":"{SANITIZED}"}}`:                                                     `callbacks.token: the hub has replaced it`,
		`{"a\nb":{"c\nd":["{SANITIZED}"]}}`:                                                         `the hub has replaced it`,
		`{"compose":{"containers":[{"env_vars":[{"name":"-"}]}]}}`:                                  `compose.containers[0].env_vars[0]: "-" can't`,
		`{"compose":{"containers":[{},{"files":[{"path":""}]}]}}`:                                   `compose.containers[1].files[0]: ""`,
		`{"compose":{"image_pull_credentials":[{"env_vars":[{}]}]}}`:                                `compose.image_pull_credentials[0].env_vars[0]`,
		`{"compose":{"image_pull_credentials":[{"files":[{"path":"x","content":"{SANITIZED}"}]}]}}`: `compose.image_pull_credentials[0].files[0] (x): the hub`,
	} {
		req, _, err := Parse([]byte(raw), "j")
		if assert.Error(t, err, "%.200s", raw) {
			assert.ErrorContains(t, err, want, "%.200s", raw)
			checkLine(t, err)
		}
		assert.Nil(t, req)
	}
}

// checkLine checks that an error can stand in a job's log.
func checkLine(t *testing.T, err error) {
	t.Helper()
	text := err.Error()
	assert.NotContains(t, text, "\n")
	assert.NotContains(t, text, "wire", "our types are nothing to a user")
	assert.NotContains(t, text, "Go ")
	assert.Less(t, len(text), 2000)
}

// Whatever is wrong with the rest, the log's address is known, so that the log can say what is.
func TestLoggerOfABadRequest(t *testing.T) {
	_, logger, err := Parse([]byte(`{"logger":{"url":"http://logs","token":"t"},"commands":5}`), "j")
	require.Error(t, err)
	assert.Equal(t, Logger{URL: "http://logs", Token: "t"}, logger)
}

func TestModes(t *testing.T) {
	for text, want := range map[string]fs.FileMode{"": 0o644, "0600": 0o600, "600": 0o600, "0755": 0o755, "0": 0, "0777": 0o777} {
		mode, err := parseMode(text)
		require.NoError(t, err)
		assert.Equal(t, want, mode, text)
	}
}

func TestWithoutTokens(t *testing.T) {
	raw := []byte(`{"job_id":"j","commands":[{"directive":"a && b > <c>"}],"logger":{"url":"u","token":"log-secret","max_size_in_bytes":16777216},
		"callbacks":{"finished":"f","token":"callback-secret"}}`)
	kept := WithoutTokens(raw)
	assert.NotContains(t, string(kept), "secret")
	req, logger, err := Parse(kept, "j")
	require.NoError(t, err)
	assert.Equal(t, Logger{URL: "u", MaxSizeBytes: 16 << 20}, logger)
	assert.Equal(t, "a && b > <c>", req.Job.Commands[0].Directive)

	for _, odd := range []string{``, `null`, `[]`, `nonsense`} {
		assert.Equal(t, odd, string(WithoutTokens([]byte(odd))))
	}
	for _, odd := range []string{`{"logger":null}`, `{"logger":"x","callbacks":[]}`} {
		assert.JSONEq(t, odd, string(WithoutTokens([]byte(odd))))
	}
}

func TestFromYAML(t *testing.T) {
	id, raw, err := FromYAML([]byte(`
job_id: j-7
job_name: try
executor: mine
commands:
  - make
  - directive: make test
    alias: Test
  - |
    two
    lines
epilogue_always_commands: [bye]
env_vars:
  - {name: ENCODED, value: ` + b64("e") + `}
env:
  TEXT: "a: b"
  NUMBER: 1000000
  BIG: 12345678901234567890
  FRACTION: 1.50
  FLAG: true
  NOTHING:
files:
  - {path: a, text: "hello\n", mode: "0600"}
  - {path: b, content: ` + b64("x") + `}
`))
	require.NoError(t, err)
	assert.Equal(t, "j-7", id)
	req, _, err := Parse(raw, id)
	require.NoError(t, err)
	assert.Equal(t, "mine", req.Executor)
	assert.Equal(t, []protocol.Command{{Directive: "make"}, {Directive: "make test", Alias: "Test"}, {Directive: "two\nlines\n"}}, req.Job.Commands)
	assert.Equal(t, []protocol.Command{{Directive: "bye"}}, req.Job.EpilogueAlways)
	assert.Equal(t, []protocol.File{
		{Path: "a", Content: []byte("hello\n"), Mode: 0o600}, {Path: "b", Content: []byte("x"), Mode: 0o644},
	}, req.Job.Files)
	env := map[string]string{}
	for _, v := range req.Job.Env {
		env[v.Name] = v.Value
	}
	assert.Equal(t, "ENCODED", req.Job.Env[0].Name, "plain variables come last, and win")
	assert.Equal(t, map[string]string{
		"ENCODED": "e", "TEXT": "a: b", "NUMBER": "1000000", "FLAG": "true", "NOTHING": "",
	}, without(env, "FRACTION", "BIG"))
	assert.Regexp(t, `^1\.50?$`, env["FRACTION"])
	assert.Equal(t, "12345678901234567890", env["BIG"])
}

func without(m map[string]string, names ...string) map[string]string {
	m = maps.Clone(m)
	for _, name := range names {
		delete(m, name)
	}
	return m
}

func TestFromYAMLWithContainers(t *testing.T) {
	id, raw, err := FromYAML([]byte(`
compose:
  host_setup_commands:
    - modprobe x
    - {directive: make, alias: Make}
  containers:
    - name: main
      image: debian:12
    - name: db
      image: db:1
      env_vars: [{name: ENCODED, value: ` + b64("e") + `}]
      env: {PORT: 80}
      files:
        - {path: /a, text: "hello\n"}
  image_pull_credentials:
    - env: {DOCKER_CREDENTIAL_TYPE: GCR}
      files: [{path: /tmp/gcr/keyfile.json, text: "{}"}]
`))
	require.NoError(t, err)
	req, _, err := Parse(raw, id)
	require.NoError(t, err)
	assert.Equal(t, "dockercompose", req.Executor)
	compose := req.Job.Compose
	assert.Equal(t, []protocol.Command{{Directive: "modprobe x"}, {Directive: "make", Alias: "Make"}}, compose.HostSetupCommands)
	require.Len(t, compose.Containers, 2)
	assert.Equal(t, []protocol.EnvVar{{Name: "ENCODED", Value: "e"}, {Name: "PORT", Value: "80"}}, compose.Containers[1].Env)
	assert.Equal(t, []protocol.File{{Path: "/a", Content: []byte("hello\n"), Mode: 0o644}}, compose.Containers[1].Files)
	assert.Equal(t, []protocol.PullCredentials{{
		Env:   []protocol.EnvVar{{Name: "DOCKER_CREDENTIAL_TYPE", Value: "GCR"}},
		Files: []protocol.File{{Path: "/tmp/gcr/keyfile.json", Content: []byte("{}"), Mode: 0o644}},
	}}, compose.ImagePullCredentials)
}

func TestFromYAMLKeepsAnExecutor(t *testing.T) {
	id, raw, err := FromYAML([]byte("executor: mine\ncompose: {containers: [{image: debian:12}]}"))
	require.NoError(t, err)
	req, _, err := Parse(raw, id)
	require.NoError(t, err)
	assert.Equal(t, "mine", req.Executor)
}

func TestFromYAMLMakesAnID(t *testing.T) {
	seen := map[string]bool{}
	for _, raw := range []string{"commands: [make]", "job_id:\ncommands: [make]", `{"job_id": "", "commands": ["make"]}`} {
		id, req, err := FromYAML([]byte(raw))
		require.NoError(t, err)
		assert.Len(t, id, 36)
		assert.False(t, seen[id])
		seen[id] = true
		_, _, err = Parse(req, id)
		require.NoError(t, err)
	}
}

func TestBadYAML(t *testing.T) {
	for raw, want := range map[string]string{
		"":                             "it is empty",
		"# nothing\n":                  "it is empty",
		"a: b: c":                      "not a job in YAML",
		"commands: [make\nx":           "not a job in YAML",
		"\tx":                          "not a job in YAML",
		"- make":                       "it is a list where an object belongs",
		"make":                         "it is a text where an object belongs",
		"comands: [make]":              `a job has no field "comands"`,
		"commands: [x]\ncommands: [y]": "commands",
		"env: [A=1]":                   "env: it must be a table",
		"env: {A: [1]}":                "env: the value of A must be",
		"env: {A: {b: c}}":             "env: the value of A must be",
		"env: {A: 1}\nenv_vars: x":     "env_vars: it must be a list",
		"job_id: 5":                    "job_id: it must be a text",
		"files: [{path: a, text: 5}]":  "files[0]: text: it must be a text",
		"files: [{path: a, text: x, content: eA==}]":       "files[0]: it has both",
		"compose: {services: []}":                          `compose has no field "services"`,
		"compose: {containers: [{image: x}, {comand: x}]}": `compose.containers[1]: a container has no field "comand"`,
		"compose: {containers: [{files: [{text: 5}]}]}":    "compose.containers[0]: files[0]: text: it must be a text",
		"compose: {containers: [{env: [A=1]}]}":            "compose.containers[0]: env: it must be a table",
	} {
		_, _, err := FromYAML([]byte(raw))
		if assert.Error(t, err, raw) {
			assert.ErrorContains(t, err, want, raw)
			checkLine(t, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{}`), "j")
	f.Add([]byte(`null`), "")
	f.Add([]byte(`{"commands":[null,{"directive":1}],"env_vars":[{"name":"A\n"}],"files":[{"path":"\n","content":"%"}]}`), "a\nb")
	f.Add([]byte(`{"compose":{"containers":[{"files":[{}]}]},"logger":{"max_size_in_bytes":1e999},"x\n":["{SANITIZED}"]}`), "..")
	f.Fuzz(func(t *testing.T, raw []byte, id string) {
		req, _, err := Parse(raw, id)
		if err != nil {
			assert.NotContains(t, err.Error(), "\n")
			assert.Nil(t, req)
		} else {
			assert.Equal(t, id, req.Job.ID)
			kept, _, err := Parse(WithoutTokens(raw), id)
			require.NoError(t, err, "what is kept on disk can be read again")
			assert.Equal(t, req.Job, kept.Job)
		}
	})
}

func FuzzFromYAML(f *testing.F) {
	f.Add([]byte("commands: [make]\nenv: {A: 1}\nfiles: [{path: a, text: b}]"))
	f.Add([]byte("- x"))
	f.Add([]byte("a: &x [*x]"))
	f.Add([]byte("? [a]\n: b"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		id, req, err := FromYAML(raw)
		if err != nil {
			assert.NotContains(t, err.Error(), "\n")
			return
		}
		assert.NotEmpty(t, id)
		if _, _, err := Parse(req, id); err != nil {
			assert.NotContains(t, err.Error(), "\n")
		}
	})
}
