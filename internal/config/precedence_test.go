package config

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"
)

// samples holds three texts for each option: for a flag, a variable and the file. Neighbours differ, and the first one isn't
// the default. TestSamples demands one for each new option.
var samples = map[string][3]string{
	"config-file":                   {"a.toml", "b.toml", "c.toml"},
	"endpoint":                      {"one.example.com", "two.example.com:8080", "127.0.0.1:4000"},
	"token":                         {"token-one", "token-two", "token-three"},
	"token-file":                    {"/a/token", "/b/token", "/c/token"},
	"token-command":                 {"echo a", "cat /b | head -1", "pass show 'c d'"},
	"ca-file":                       {"/a.pem", "/b.pem", "/c.pem"},
	"client-cert":                   {"/a.pem", "/b.pem", "/c.pem"},
	"client-key":                    {"/a.key", "/b.key", "/c.key"},
	"proxy":                         {"http://a:3128", "none", "socks5://u:p@c"},
	"name":                          {"one", "two/2", "three+3"},
	"name-from-env":                 {"NAME_A", "NAME_B", "NAME_C"},
	"no-https":                      {"true", "false", "true"},
	"concurrency":                   {"2", "3", "256"},
	"on-unknown":                    {"exit", "register", "exit"},
	"disconnect-after-job":          {"true", "false", "true"},
	"job-id":                        {uuid("1"), uuid("2"), uuid("3")},
	"disconnect-after-idle-timeout": {"1", "2m", "3"},
	"interruption-grace-period":     {"1", "2", "3h"},
	"state-dir":                     {"/a", "/b", "/c"},
	"plugin-dirs":                   {"/a", "/b,/c", "/d"},
	"job-executors":                 {"dev", "run,dev", "k8s"},
	"job-user":                      {"ci", "ci1", "1000"},
	"pass-env":                      {"PATH", "LC_*,HOME", "A?"},
	"env-vars":                      {"A=1", "B=2,C=x=y", "D="},
	"files":                         {"/a:/b", "/c:/d,/e:/f", "/g:/h"},
	"fail-on-missing-files":         {"true", "false", "true"},
	"upload-job-logs":               {"when-trimmed", "always", "never"},
	"pre-job-hook-path":             {"/a.sh", "/b.sh", "/c.sh"},
	"source-pre-job-hook":           {"true", "false", "true"},
	"fail-on-pre-job-hook-error":    {"true", "false", "true"},
	"post-job-hook-path":            {"/a.sh", "/b.sh", "/c.sh"},
	"shutdown-hook-path":            {"/a.sh", "/b.sh", "/c.sh"},
	"kubernetes-executor":           {"true", "false", "true"},
	"kubernetes-pod-spec":           {"one", "two", "three"},
	"kubernetes-allowed-images":     {"^a/.+", "b,c", "d"},
	"kubernetes-labels":             {"a=b", "c=d,example.com/e=f", "g="},
	"kubernetes-pod-start-timeout":  {"1", "2", "3m"},
	"kubernetes-default-image":      {"one:1", "two", "three"},
	"executors.shell":               {"dev", "", "run"},
	"executors.dockercompose":       {"dev", "", "run"},
	"log.flush-timeout":             {"1m", "", "90s"},
	"log.max-disk":                  {"2GiB", "", "300MB"},
	"jobs.keep":                     {"1h", "", "90m"},
	"jobs.stop-grace":               {"1s", "", "500ms"},
	"kubernetes.kubeconfig":         {"/a", "", "/b"},
	"kubernetes.context":            {"one", "", "two"},
	"kubernetes.namespace":          {"a", "", "b-2"},
	"limits.memory":                 {"1GiB", "", "64MiB"},
	"limits.cpus":                   {"2", "", "0.5"},
	"limits.pids":                   {"1000", "", "64"},
	"compose.pull-policy":           {"always", "", "never"},
	"compose.allowed-images":        {"^one$", "", "^two$"},
	"compose.mount-docker-socket":   {"false", "", "true"},
	"compose.expose-kvm-device":     {"true", "", "false"},
	"limits.timeout":                {"1h", "", "90s"},
	"admission.min-disk":            {"1GiB", "", "0B"},
	"admission.min-inodes":          {"1000", "", "64"},
	"admission.min-memory":          {"1GiB", "", "64MiB"},
	"admin.listen":                  {"127.0.0.1:8070", "", "[::1]:80"},
	"secrets.env-vars":              {"A", "", "B*"},
	"secrets.files":                 {"a", "", "*.pem"},
	"statsd.host":                   {"one.example.com", "", "127.0.0.1"},
	"statsd.port":                   {"1", "", "9125"},
	"statsd.namespace":              {"a", "", "b.c-d_e"},
	"plugins.verify":                {"locked", "", "off"},
	"auth-token-secret":             {"one", "two", ""},
	"host":                          {"127.0.0.1", "::1", ""},
	"port":                          {"1", "0", ""},
	"tls-cert-path":                 {"/a.crt", "/b.crt", ""},
	"tls-key-path":                  {"/a.key", "/b.key", ""},
	"tls-self-signed":               {"true", "false", ""},
	"callback-retry-attempts":       {"1", "2", ""},
	"expose-kvm-device":             {"false", "true", ""},
	"statsd-host":                   {"one.example.com", "127.0.0.1", ""},
	"statsd-port":                   {"1", "9125", ""},
	"statsd-namespace":              {"a", "b.c-d_e", ""},
	"log-level":                     {"debug", "warning", ""},
	"log-file-path":                 {"/a.log", "/b.log", ""},
	"logs-compression-size":         {"2MB", "1048576", ""},
}

func uuid(digit string) string {
	return strings.Repeat(digit, 8) + "-" + strings.Repeat(digit, 4) + "-4444-8888-" + strings.Repeat(digit, 12)
}

func TestSamples(t *testing.T) {
	assert.Len(t, samples, len(options))
	for _, o := range options {
		assert.Contains(t, samples, o.key)
	}
}

// fileLine writes an option as a line of the file; a dotted key is in its table.
func fileLine(o option, text string) string { return o.key + " = " + tomlQuote(text) + "\n" }

func TestPrecedence(t *testing.T) {
	for _, o := range options {
		for set := range place(8) {
			if set&o.in != set || o.key == "config-file" && set&inFile != 0 {
				continue
			}
			t.Run(o.key+"/"+strconv.Itoa(int(set)), func(t *testing.T) {
				s := Sources{Path: "agent.toml", Flags: map[string][]string{}, Serve: true}
				want, origin := o.def, Origin{Source: FromDefault}
				if set&inFile != 0 {
					want, origin = samples[o.key][2], Origin{FromFile, "agent.toml:1"}
					s.File = []byte(fileLine(o, want))
				}
				if set&inEnv != 0 {
					want, origin = samples[o.key][1], Origin{FromEnv, o.env()}
					s.LookupEnv = lookup(map[string]string{o.env(): want})
				}
				if set&inFlag != 0 {
					want, origin = samples[o.key][0], Origin{FromFlag, "--" + o.key}
					s.Flags[o.key] = []string{want}
				}
				c, warnings, err := parseOptions(s)
				require.NoError(t, err)
				assert.Empty(t, warnings)
				assert.Equal(t, origin, c.origins[o.key])

				expected := defaults()
				if want != "" {
					require.NoError(t, o.value.set(expected, textInput(want)))
				}
				expected.origins, c.origins = nil, nil
				assert.Equal(t, expected, c)
			})
		}
	}
}

func lookup(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}
}

// TestLoad does the same through a command line, the process's environment and a file on disk.
func TestLoad(t *testing.T) {
	for _, o := range options {
		if o.in != everywhere {
			continue
		}
		t.Run(o.key, func(t *testing.T) {
			clearEnv(t)
			for _, v := range []string{"NAME_A", "NAME_B", "NAME_C"} {
				t.Setenv(v, "from-"+strings.ToLower(v[len(v)-1:]))
			}
			base := map[string]string{"endpoint": "hub.example.com", "token": "t0ken"}
			switch o.key {
			case "job-id":
				base["disconnect-after-job"] = "true"
			case "token-file", "token-command":
				delete(base, "token")
			case "client-cert":
				base["client-key"] = "/key.pem"
			case "client-key":
				base["client-cert"] = "/cert.pem"
			}
			file := fileLine(o, samples[o.key][2])
			for key, v := range base {
				if key != o.key {
					file += key + " = " + tomlQuote(v) + "\n"
				}
			}
			path := filepath.Join(t.TempDir(), "agent.toml")
			require.NoError(t, os.WriteFile(path, []byte(file), 0o600))

			assert.Equal(t, shown(t, o, samples[o.key][2]), o.value.show(load(t, "--config-file", path)))
			t.Setenv(o.env(), samples[o.key][1])
			assert.Equal(t, shown(t, o, samples[o.key][1]), o.value.show(load(t, "--config-file", path)))
			c := load(t, "--config-file", path, "--"+o.key+"="+samples[o.key][0])
			assert.Equal(t, shown(t, o, samples[o.key][0]), o.value.show(c))
			assert.Equal(t, path, c.ConfigFile)
			t.Setenv("SEMAPHORE_AGENT_CONFIG_FILE", path)
			assert.Equal(t, c.String(), load(t, "--"+o.key, samples[o.key][0]).String())
		})
	}
}

func shown(t *testing.T, o option, text string) string {
	t.Helper()
	c := defaults()
	require.NoError(t, o.value.set(c, textInput(text)))
	return o.value.show(c)
}

func load(t *testing.T, args ...string) *Config {
	t.Helper()
	c, _, err := run(args...)
	require.NoError(t, err)
	return c
}

func run(args ...string) (c *Config, warnings []string, err error) {
	app := &cli.App{Commands: []*cli.Command{{
		Name: "start", Flags: Flags(),
		Action: func(ctx *cli.Context) error {
			c, warnings, err = Load(ctx)
			return err
		},
	}}, ExitErrHandler: func(*cli.Context, error) {}}
	err = app.Run(append([]string{"supervisor", "start"}, args...))
	return c, warnings, err
}

// clearEnv makes the test independent of what the process was started with: an empty variable is one that isn't set.
func clearEnv(t *testing.T) {
	t.Helper()
	for _, o := range options {
		t.Setenv(o.env(), "")
	}
	t.Setenv("HOME", t.TempDir())
}

func TestBareBooleanFlagsAndRepeatedOnes(t *testing.T) {
	clearEnv(t)
	c := load(t, "--endpoint", "a", "--endpoint", "hub.example.com", "--token", "t0ken", "--no-https", "--disconnect-after-job=false",
		"--files", "/a:/b", "--files", "/c:/d,/e:/f")
	assert.Equal(t, "hub.example.com", c.Endpoint)
	assert.True(t, c.NoHTTPS)
	assert.False(t, c.DisconnectAfterJob)
	assert.Equal(t, []File{{"/a", "/b"}, {"/c", "/d"}, {"/e", "/f"}}, c.Files)
}

func TestHelpShowsVariableDefaultAndPlaceholder(t *testing.T) {
	for name, flags := range map[string][]cli.Flag{"start": Flags(), "serve": ServeFlags()} {
		var out strings.Builder
		app := &cli.App{Name: "supervisor", Writer: &out, Commands: []*cli.Command{{Name: name, Flags: flags}}}
		require.NoError(t, app.Run([]string{"supervisor", name, "--help"}))
		for _, o := range options {
			if o.in&inFlag == 0 {
				continue
			}
			shown := strings.Contains(out.String(), strings.TrimSpace("--"+o.key+" "+o.arg)) && strings.Contains(out.String(), "[$"+o.env()+"]")
			assert.Equal(t, name == "start" && o.group != serveGroup || name == "serve" && (o.group == serveGroup || serveToo[o.key]), shown, "%s --%s", name, o.key)
		}
		assert.Contains(t, out.String(), "(default: 300)")
	}
	for key := range serveToo {
		_, known := optionOf(key)
		assert.True(t, known, key)
	}
}

// What serve is told wins over the table for all; start doesn't look at variables that are serve's.
func TestServe(t *testing.T) {
	env := map[string]string{"SEMAPHORE_AGENT_PORT": "tcp://10.0.0.1:80", "SEMAPHORE_AGENT_STATSD_HOST": "b.example.com"}
	file := []byte("[statsd]\nhost = \"a.example.com\"\nport = 9\n")
	c, _, err := Parse(Sources{Flags: required(), Root: true, LookupEnv: lookup(env), File: file})
	require.NoError(t, err)
	assert.Equal(t, 8000, c.Serve.Port)
	assert.Equal(t, StatsD{Host: "a.example.com", Port: 9, Namespace: "agent.prod"}, c.StatsD)

	_, _, err = Parse(Sources{Root: true, LookupEnv: lookup(env), File: file, WithoutHub: true, Serve: true})
	require.ErrorContains(t, err, "SEMAPHORE_AGENT_PORT")
	delete(env, "SEMAPHORE_AGENT_PORT")
	_, _, err = Parse(Sources{Root: true, LookupEnv: lookup(env), File: file, WithoutHub: true, Serve: true})
	require.ErrorContains(t, err, "auth-token-secret must be set")
	env["SEMAPHORE_AGENT_AUTH_TOKEN_SECRET"] = "5ecret"
	c, _, err = Parse(Sources{Root: true, LookupEnv: lookup(env), File: file, WithoutHub: true, Serve: true})
	require.NoError(t, err)
	assert.Equal(t, StatsD{Host: "b.example.com", Port: 9, Namespace: "agent.prod"}, c.StatsD)
	assert.NotContains(t, c.String(), "5ecret")
}
