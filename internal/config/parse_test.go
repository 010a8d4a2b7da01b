package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const stsURL = "https://sts.us-east-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Signature=5ecret"

func TestErrorsOfValues(t *testing.T) {
	long := strings.Repeat("x", 81)
	for _, test := range []struct{ key, text, want string }{
		{"concurrency", "0", `"0" is not allowed; it must be a whole number from 1 to 256`},
		{"concurrency", "257", `"257" is not allowed; it must be a whole number from 1 to 256`},
		{"concurrency", "two", `"two" is not allowed; it must be a whole number from 1 to 256`},
		{"no-https", "maybe", `"maybe" is neither true nor false`},
		{"on-unknown", "stay", `"stay" is not allowed; it must be one of register, exit`},
		{"upload-job-logs", "Always", `"Always" is not allowed; it must be one of never, when-trimmed, always`},
		{"endpoint", "https://hub.example.com/x", `it must be a host or host:port, without a scheme (https://); write the host alone: "hub.example.com"`},
		{"endpoint", "http://hub:8080", `it must be a host or host:port, without a scheme (http://); write the host alone: "hub:8080", and set no-https`},
		{"endpoint", "hub.example.com/x", `it must be a host or host:port, without a path; write the host alone: "hub.example.com"`},
		{"endpoint", "hub:99999", `"hub:99999" is not a host or host:port, such as "example.semaphoreci.com"`},
		{"token", "5ecret 5ecret", `the token holds a space or another character that no token has`},
		{"name", long, `it has 81 characters; 80 are allowed`},
		{"name", "a b", `"a b" has characters that aren't allowed in a name; allowed are a-z A-Z 0-9 - _ / +`},
		{"name", "https://example.com/?5ecret", `a name can't be a URL, unless it is a pre-signed one of AWS STS GetCallerIdentity`},
		{"name", "//example.com", `a name can't be a URL, unless it is a pre-signed one of AWS STS GetCallerIdentity`},
		{"name", strings.Replace(stsURL, "https", "http", 1), `a name can't be a URL, unless it is a pre-signed one of AWS STS GetCallerIdentity`},
		{"name-from-env", "A-B", `"A-B" is not the name of an environment variable`},
		{"job-id", "1", `"1" is not a job's id, which is a UUID`},
		{"disconnect-after-idle-timeout", "-1", `"-1" is not allowed; it must be whole seconds from 0 to 31536000`},
		{"interruption-grace-period", "1.5s", `"1.5s" is not allowed; it must be whole seconds from 0 to 31536000`},
		{"kubernetes-pod-start-timeout", "0", `"0" is not allowed; it must be whole seconds from 1 to 86400`},
		{"job-user", "ci,a b", `item 2: "a b" is not the name of a user`},
		{"job-executors", "../x", `item 1: "../x" is not the name of an executor; allowed are letters, digits, '-', '_' and '.'`},
		{"secrets.files", "a=b,[", `item 2: "[" is neither a file's name or path nor a glob, such as "*.pem"`},
		{"pass-env", "A,[", `item 2: "[" is neither a variable's name nor a glob, such as "LC_*"`},
		{"env-vars", "A=5ecret1,5ecret2", `item 2: it isn't VAR=VALUE (a value with a comma in it needs a TOML array or table)`},
		{"env-vars", "A-B=5ecret", `item 1: what stands before the "=" isn't the name of an environment variable`},
		{"files", "/a", `item 1: "/a" isn't /path/on/host:/path/in/container`},
		{"files", "a:/b", `item 1: "a:/b" isn't /path/on/host:/path/in/container; both paths must be absolute`},
		{"files", "/a:/b:ro", `item 1: "/a:/b:ro" isn't /path/on/host:/path/in/container; both paths must be absolute`},
		{"kubernetes-allowed-images", "a(", `item 1: "a(" is not a regular expression: missing closing ): ` + "`a(`"},
		{"kubernetes-labels", "a=b,c", `item 2: "c" is not a Kubernetes label, KEY=VALUE`},
		{"pre-job-hook-path", "a\x00", `it holds a NUL byte`},
		{"executors.shell", "", `"" is not the name of an executor; allowed are letters, digits, '-', '_' and '.'`},
		{"log.flush-timeout", "soon", `"soon" is not allowed; it must be a duration from 1s to 24h, such as "90s", "5m" or "48h"`},
		{"log.max-disk", "1", `"1" is not allowed; it must be from 1MiB to 1024TiB`},
		{"log.max-disk", "1 EB", `"1 EB" has no unit that is known; units are B, KB, MB, GB, TB, KiB, MiB, GiB and TiB`},
		{"log.max-disk", "x", `"x" is not a size; write a whole number and a unit, such as "500MB" or "1GiB"`},
		{"log.max-disk", "99999999999999999TiB", `"99999999999999999TiB" is too large a size`},
		{"jobs.keep", "-1h", `"-1h" is not allowed; it must be a duration from 0s to 87600h, such as "90s", "5m" or "48h"`},
		{"log-level", "loud", `"loud" is not allowed; it must be one of trace, debug, info, warn, error, off`},
		{"logs-compression-size", "5", `"5" is not allowed; it must be from 1MB to 1GiB`},
	} {
		t.Run(test.key+"="+test.text, func(t *testing.T) {
			o, ok := optionOf(test.key)
			require.True(t, ok)
			if o.in&inFlag != 0 {
				_, _, err := Parse(Sources{Flags: map[string][]string{o.key: {test.text}}})
				require.EqualError(t, err, "--"+o.key+": "+test.want)
			}
			if o.in&inEnv != 0 {
				_, _, err := Parse(Sources{LookupEnv: lookup(map[string]string{o.env(): test.text})})
				require.EqualError(t, err, o.env()+": "+test.want)
			}
			if o.in&inFile != 0 {
				_, _, err := Parse(Sources{Path: "agent.toml", File: []byte("\n" + fileLine(o, test.text))})
				require.EqualError(t, err, "agent.toml:2: "+o.key+": "+test.want)
				assert.NotContains(t, err.Error(), "5ecret")
			}
		})
	}
}

func TestErrorsOfTheFile(t *testing.T) {
	for _, test := range []struct{ name, file, want string }{
		{"unknown", "\nnme = \"x\"", `agent.toml:2: unknown key "nme"; did you mean "name"?`},
		{"underscore", "no_https = true", `agent.toml:1: unknown key "no_https"; did you mean "no-https"?`},
		{"nothing close", "colour = true", `agent.toml:1: unknown key "colour"`},
		{"all unknown", "b = 1\na = 2", "agent.toml:1: unknown key \"b\"\nagent.toml:2: unknown key \"a\""},
		{"in a table", "[log]\nmax-dsk = 1", `agent.toml:2: unknown key "log.max-dsk"; did you mean "log.max-disk"?`},
		{"not in its table", "flush-timeout = 1", `agent.toml:1: unknown key "flush-timeout"; did you mean "log.flush-timeout"?`},
		{"after a table", "[log]\nname = \"x\"", `agent.toml:2: unknown key "log.name"; did you mean "name"? It belongs above the first [table]`},
		{"made a table", "[kubernetes]\npod-spec = \"x\"",
			`agent.toml:2: unknown key "kubernetes.pod-spec"; did you mean "kubernetes-pod-spec"? It belongs above the first [table]`},
		{"unknown table", "[nothing]", `agent.toml:1: unknown key "nothing"`},
		{"deep", "a.b.c.d = 1", `agent.toml: unknown key "a.b"`},
		{"quoted dot", `"log.max-disk" = 1`, `agent.toml:1: unknown key "log.max-disk"; did you mean "log.max-disk"?`},
		{"no table", "log = 1", `agent.toml:1: log: it must be a table, [log]`},
		{"array of tables", "[[log]]\nmax-disk = 1", `agent.toml:1: log: it must be a table, [log]`},
		{"environment only", "log-level = \"debug\"", `agent.toml:1: log-level can't be set in the file; set the environment variable SEMAPHORE_AGENT_LOG_LEVEL`},
		{"number for text", "token = 5", `agent.toml:1: token: it must be text in quotes, not a number`},
		{"fraction", "concurrency = 1.5", `agent.toml:1: concurrency: it must be a whole number from 1 to 256, not a number with a fraction`},
		{"text for a list item", "files = [\"/a:/b\", 1]", `agent.toml:1: files: item 2: it must be text in quotes, not a number`},
		{"list for one", "name = [\"a\"]", `agent.toml:1: name: it must be text in quotes, not an array`},
		{"number for boolean", "no-https = 1", `agent.toml:1: no-https: it must be true or false, not a number`},
		{"table for a list", "[files]\na = \"b\"", `agent.toml:1: files: it must be a list: an array of texts, or one text with commas, not a table`},
		{"date", "job-id = 2020-01-01", `agent.toml:1: job-id: it must be text in quotes, not a date or time`},
		{"empty item", "job-user = [\"\"]", `agent.toml:1: job-user: item 1: it is empty`},
		{"bad table value", "[env-vars]\nA = 1.5", `agent.toml:1: env-vars: "A": it must be text in quotes, not a number with a fraction`},
		{"bad table name", "[env-vars]\n\"A=B\" = \"1\"", `agent.toml:1: env-vars: "A=B": a name can't hold "="`},
		{"no quotes", "\n\nupload-job-logs = always",
			`agent.toml:3: it is not valid TOML: a value must stand here; text needs quotes`},
		{"unquoted secret", "token = tr5ecret", `agent.toml:1: it is not valid TOML: a value must stand here; text needs quotes`},
		{"secret as a number", "token = 1.5ecret", `agent.toml:1: it is not valid TOML: Invalid float value: [something]`},
		{"secret with an escape", "token = \"5ecret\\u12\"", `agent.toml:1: it is not valid TOML: expected four hexadecimal digits after '\u', but got [something] instead`},
		{"twice", "name = \"a\"\nname = \"b\"", `agent.toml:2: it is not valid TOML: Key 'name' has already been defined`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := Parse(Sources{Path: "agent.toml", File: []byte(test.file)})
			require.EqualError(t, err, test.want)
			assert.NotContains(t, err.Error(), "5ecret")
		})
	}
	var many strings.Builder
	for i := range 13 {
		fmt.Fprintf(&many, "x%d = 1\n", i)
	}
	_, _, err := Parse(Sources{Path: "agent.toml", File: []byte(many.String())})
	require.ErrorContains(t, err, "agent.toml:10: unknown key \"x9\"\nagent.toml: and 3 more")

	_, _, err = Parse(Sources{Path: "agent.toml", File: make([]byte, largestFile+1)})
	require.EqualError(t, err, "agent.toml: it is larger than a config file can be (256KiB)")
}

func TestErrorsBetweenOptions(t *testing.T) {
	n79 := strings.Repeat("x", 79)
	for _, test := range []struct {
		name  string
		flags map[string]string
		want  string
	}{
		{"token only", map[string]string{"endpoint": ""}, `endpoint must be set: use --endpoint, SEMAPHORE_AGENT_ENDPOINT, or endpoint = "..." in the config file`},
		{"endpoint only", map[string]string{"token": ""}, `token must be set: use --token, SEMAPHORE_AGENT_TOKEN, or token = "..." in the config file (or token-file or token-command)`},
		{"two tokens", map[string]string{"token-file": "/x"},
			`--token and --token-file: only one of token, token-file and token-command may be set`},
		{"two tokens, one a variable's", map[string]string{"token": "", "token-file": "/x"},
			`--token-file and SEMAPHORE_AGENT_TOKEN_COMMAND: only one of token, token-file and token-command may be set`},
		{"certificate without key", map[string]string{"client-cert": "/x"}, `--client-cert: it needs client-key, which isn't set`},
		{"key without certificate", map[string]string{"client-key": "/x"}, `--client-key: it needs client-cert, which isn't set`},
		{"proxy", map[string]string{"proxy": "user:5ecret@proxy:3128"},
			`--proxy: the proxy has no scheme; write it such as "http://proxy.example.com:3128", or "none"`},
		{"job-id", map[string]string{"job-id": uuid("1")}, `--job-id: it needs disconnect-after-job to be true`},
		{"job-id and slots", map[string]string{"job-id": uuid("1"), "disconnect-after-job": "true", "concurrency": "2"},
			`--job-id: it needs concurrency 1, which is set to 2`},
		{"URL and slots", map[string]string{"name": stsURL, "concurrency": "2"},
			`--name: a pre-signed URL as the name needs concurrency 1, which is set to 2`},
		{"URL from env and slots", map[string]string{"name-from-env": "STS", "concurrency": "2"},
			`--name-from-env: a pre-signed URL as the name needs concurrency 1, which is set to 2`},
		{"long name and slots", map[string]string{"name": n79, "concurrency": "2"},
			`--name: with concurrency 2 it may have 78 characters, as slots are named NAME-2 to NAME-2; it has 79`},
		{"users", map[string]string{"job-user": "a,b", "concurrency": "3"},
			`--job-user: it has 2 names; it must have one for all slots, or one a slot (concurrency is 3)`},
		{"no such variable", map[string]string{"name-from-env": "NO"}, `--name-from-env: the environment variable NO is not set`},
		{"bad name in it", map[string]string{"name-from-env": "BAD"},
			`--name-from-env: the environment variable BAD: "a b" has characters that aren't allowed in a name; allowed are a-z A-Z 0-9 - _ / +`},
		{"two", map[string]string{"concurrency": "0", "no-https": "x"},
			"--no-https: \"x\" is neither true nor false\n--concurrency: \"0\" is not allowed; it must be a whole number from 1 to 256"},
		{"no home", map[string]string{}, `state-dir: neither XDG_STATE_HOME nor HOME is set to derive it from; set --state-dir`},
	} {
		t.Run(test.name, func(t *testing.T) {
			flags := required()
			for k, v := range test.flags {
				flags[k] = []string{v}
			}
			env := map[string]string{"STS": stsURL, "BAD": "a b"}
			if strings.Contains(test.want, "SEMAPHORE_AGENT_TOKEN_COMMAND") {
				env["SEMAPHORE_AGENT_TOKEN_COMMAND"] = "true"
			}
			_, _, err := Parse(Sources{Flags: flags, Root: test.name != "no home", LookupEnv: lookup(env)})
			require.EqualError(t, err, test.want)
		})
	}
}

func TestFilesOfTheConnectionAreAbsolute(t *testing.T) {
	flags := required()
	delete(flags, "token")
	for _, key := range []string{"token-file", "ca-file", "client-cert", "client-key"} {
		flags[key] = []string{"some/" + key}
	}
	c := parsed(t, Sources{Flags: flags, Root: true})
	here, err := os.Getwd()
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(here, "some/token-file"), c.TokenFile)
	assert.Equal(t, Connection{
		CAFile: filepath.Join(here, "some/ca-file"), ClientCert: filepath.Join(here, "some/client-cert"),
		ClientKey: filepath.Join(here, "some/client-key"),
	}, c.Connection)
	assert.Empty(t, parsed(t, Sources{Flags: required(), Root: true}).Connection, "what isn't set stays so")
}

func TestStateDir(t *testing.T) {
	for _, test := range []struct {
		root bool
		env  map[string]string
		want string
	}{
		{true, map[string]string{"XDG_STATE_HOME": "/x"}, "/var/lib/signalman"},
		{false, map[string]string{"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/signalman"},
		{false, map[string]string{"XDG_STATE_HOME": "x", "HOME": "/h"}, "/h/.local/state/signalman"},
		{false, map[string]string{"HOME": "/h"}, "/h/.local/state/signalman"},
	} {
		c := parsed(t, Sources{Flags: required(), Root: test.root, LookupEnv: lookup(test.env)})
		assert.Equal(t, test.want, c.StateDir)
	}
	here, err := os.Getwd()
	require.NoError(t, err)
	flags := required()
	flags["state-dir"] = []string{"state"}
	flags["plugin-dirs"] = []string{"plugins,/x/"}
	c := parsed(t, Sources{Flags: flags})
	assert.Equal(t, filepath.Join(here, "state"), c.StateDir)
	assert.Equal(t, []string{filepath.Join(here, "plugins"), "/x"}, c.PluginDirs)
}

func TestListsAndTables(t *testing.T) {
	file := `
plugin-dirs = ["/a,b", "/c"]
kubernetes-allowed-images = ["a{1,2}"]
no-https = "true"
concurrency = "2"
interruption-grace-period = "2m"
job-user = "a, b"
log.max-disk = 1048576
[env-vars]
A = "x,y=z"
B = 5
C = true
[kubernetes-labels]
team = "web"
[executors]
dockercompose = "dev"
`
	c := parsed(t, Sources{Flags: required(), Root: true, File: []byte(file)})
	assert.Equal(t, []string{"/a,b", "/c"}, c.PluginDirs)
	assert.Equal(t, "a{1,2}", c.Kubernetes.AllowedImages[0].String())
	assert.True(t, c.NoHTTPS)
	assert.Equal(t, 120.0, c.InterruptionGrace.Seconds())
	assert.Equal(t, []EnvVar{{"A", "x,y=z"}, {"B", "5"}, {"C", "true"}}, c.EnvVars)
	assert.Equal(t, map[string]string{"team": "web"}, c.Kubernetes.Labels)
	assert.Equal(t, Executors{Shell: "shell", DockerCompose: "dev"}, c.Executors)
	assert.Equal(t, MiB, c.Log.MaxDisk)
	assert.Equal(t, []string{"a", "b"}, c.JobUsers)
}

func TestKubernetesExecutor(t *testing.T) {
	flags := required()
	flags["kubernetes-executor"] = []string{"true"}
	c := parsed(t, Sources{Flags: flags, Root: true})
	assert.Equal(t, Executors{"k8s", "k8s"}, c.Executors)
	c = parsed(t, Sources{Flags: flags, Root: true, File: []byte("executors.shell = \"shell\"")})
	assert.Equal(t, Executors{"shell", "k8s"}, c.Executors)
}

func TestWarnings(t *testing.T) {
	flags := required()
	s := Sources{Flags: flags, Root: true, Path: "agent.toml", LookupEnv: lookup(map[string]string{"HOSTNAME": "web-1"}),
		File: []byte("config-file = \"x\"\nname-from-env = \"HOSTNAME\"")}
	c, warnings, err := Parse(s)
	require.NoError(t, err)
	assert.Equal(t, "web-1", c.Name)
	assert.Equal(t, []string{
		"agent.toml:1: config-file has no effect in the file itself",
		"agent.toml:2: name-from-env is deprecated: set name instead, by --name or SEMAPHORE_AGENT_NAME or in the config file",
	}, warnings)

	flags["name"] = []string{"mine"}
	c, warnings, err = Parse(s)
	require.NoError(t, err)
	assert.Equal(t, "mine", c.Name)
	assert.Equal(t, "agent.toml:2: name-from-env is deprecated, and not used as name is set", warnings[1])
}

func TestYAMLIsRefusedWithItsTOML(t *testing.T) {
	file := `# comment
endpoint: "hub.example.com"
token: "5ecret"
no-https: false
disconnect-after-idle-timeout: 300
env-vars:
  - A=5ecret
files:
  - /a:/b
upload-job-logs: sometimes
nme: x
`
	const refusal = ": this is a YAML file, and the config file must be TOML; make one with: supervisor config import "
	want := `; this one becomes
  endpoint = "hub.example.com"
  token = "[hidden]"
  no-https = false
  disconnect-after-idle-timeout = 300
  env-vars = ["A=[hidden]"]
  files = ["/a:/b"]
  # upload-job-logs: "sometimes" is not allowed; it must be one of never, when-trimmed, always
  # unknown key "nme"; did you mean "name"?`
	for _, path := range []string{"agent.yaml", "agent.yml", "agent.toml", "agent"} {
		_, _, err := Parse(Sources{Path: path, File: []byte(file)})
		require.EqualError(t, err, path+refusal+path+want)
	}
	_, _, err := Parse(Sources{Path: "a.yml", File: []byte("a: [")})
	require.EqualError(t, err, "a.yml"+refusal+"a.yml")
}

func TestMissingFile(t *testing.T) {
	clearEnv(t)
	path := filepath.Join(t.TempDir(), "none.toml")
	_, _, err := run("--config-file", path)
	require.EqualError(t, err, "--config-file: cannot read the config file "+path+": no such file or directory")
}

func TestSecretsDoNotShow(t *testing.T) {
	flags := map[string][]string{"endpoint": {"hub.example.com"}, "token": {"5ecret"}, "env-vars": {"A=5ecret"}, "name": {stsURL},
		"proxy": {"http://us3r:5ecret@proxy:3128"}}
	c := parsed(t, Sources{Flags: flags, Root: true})
	assert.Equal(t, "5ecret", c.Token.Reveal())
	assert.True(t, c.NameIsURL())
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		for _, v := range []any{c, *c, c.Token, c.EnvVars, c.EnvVars[0], c.Settings(), c.Connection} {
			assert.NotContains(t, fmt.Sprintf(verb, v), "5ecret")
			assert.NotContains(t, fmt.Sprintf(verb, v), "us3r")
		}
	}
	for _, verb := range []string{"%d", "%x", "%t"} {
		assert.Equal(t, hidden, fmt.Sprintf(verb, c.Token))
	}
	asJSON, err := json.Marshal(c.EnvVars)
	require.NoError(t, err)
	assert.NotContains(t, string(asJSON), "5ecret")
	assert.Empty(t, Secret("").String())
	assert.Contains(t, c.String(), "\ntoken = \"[hidden]\"\n")
	assert.Contains(t, c.String(), "\nname = \"[hidden]\"\n")
	assert.Contains(t, c.String(), "\nproxy = \"http://[hidden]@proxy:3128\"\n")
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "7 B": 7, "1kb": 1000, "2KiB": 2048, "3MB": 3e6, "4 MiB": 4 * MiB, "5GB": 5e9, "1TiB": TiB} {
		got, err := ParseSize(text)
		require.NoError(t, err)
		assert.Equal(t, want, got, text)
		again, err := ParseSize(got.String())
		require.NoError(t, err)
		assert.Equal(t, want, again, got.String())
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(Example()), "a")
	f.Add([]byte("endpoint: x\nfiles:\n - /a:/b"), "A=b")
	f.Add([]byte("[log]\nmax-disk = 1\n[[jobs]]\n[a.b]\nc.d = {e = [1, {f = 2}]}"), "")
	f.Add([]byte("a: &a [*a]\nname: !!binary x"), "1GiB")
	f.Fuzz(func(t *testing.T, file []byte, text string) {
		_, _, _ = Parse(Sources{Path: "agent.toml", File: file, Flags: required()})
		_, _, _ = Parse(Sources{Path: "agent.yaml", File: file})
		for _, o := range options {
			c := defaults()
			if o.value.set(c, textInput(text)) == nil {
				_ = c.String()
			}
		}
	})
}
