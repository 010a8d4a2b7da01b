package config

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPluginTables(t *testing.T) {
	c, warnings, err := Parse(Sources{Flags: required(), Root: true, Path: "agent.toml", File: []byte(`
[limits]
memory = "1GiB"
pids = 100
[plugins]
verify = "locked"
[plugins.mine]
pass-env = ["VAULT_*", "HOME"]
memory = "2GiB"
cpus = 0.5
timeout = "90s"
region = "north"
retries = 3
ratio = 0.25
fast = true
"a.b" = "5ecret"
[plugins.other-1]
pids = 0
[plugins.empty]
`)})
	require.NoError(t, err)
	assert.Empty(t, warnings)
	assert.Equal(t, VerifyLocked, c.Verify)
	require.Len(t, c.Plugins, 3)
	assert.Equal(t, Plugin{Name: "empty", Limits: c.Limits, Settings: map[string]Secret{}, origins: map[string]Origin{}}, c.Plugins[0])
	mine := c.Plugins[1]
	assert.Equal(t, "mine", mine.Name)
	assert.Equal(t, []string{"VAULT_*", "HOME"}, mine.PassEnv)
	assert.Equal(t, Limits{Memory: 2 * GiB, MilliCPUs: 500, Pids: 100, Timeout: 90 * time.Second}, mine.Limits)
	assert.Equal(t, map[string]Secret{"region": "north", "retries": "3", "ratio": "0.25", "fast": "true", "a.b": "5ecret"}, mine.Settings)
	assert.Equal(t, Limits{Memory: GiB}, c.Plugins[2].Limits) // 0 is no limit
	assert.Equal(t, Limits{Memory: GiB, Pids: 100}, c.Limits)

	shown := map[string]Setting{}
	for _, s := range c.Settings() {
		shown[s.Key] = s
	}
	at := func(line string) Origin { return Origin{FromFile, "agent.toml:" + line} }
	assert.Equal(t, Setting{"plugins.mine.memory", `"2GiB"`, at("9")}, shown["plugins.mine.memory"])
	assert.Equal(t, Setting{"plugins.mine.pass-env", `["VAULT_*", "HOME"]`, at("8")}, shown["plugins.mine.pass-env"])
	assert.Equal(t, Setting{"plugins.mine.a.b", `"[hidden]"`, at("16")}, shown["plugins.mine.a.b"])
	assert.NotContains(t, c.String(), "5ecret")
	assert.NotContains(t, shown, "plugins.other-1.memory")
}

func TestErrorsOfPluginTables(t *testing.T) {
	for _, test := range []struct{ name, file, want string }{
		{"nested", "[plugins.mine]\n[plugins.mine.deep]\na = \"5ecret\"",
			`agent.toml:2: plugins.mine.deep: a plugin's setting must be text, a number, true or false, not a table`},
		{"inline", "[plugins.mine]\n\na = {b = 1}", `agent.toml:3: plugins.mine.a: a plugin's setting must be text, a number, true or false, not a table`},
		{"array", "[plugins.mine]\na = [\"5ecret\"]", `agent.toml:2: plugins.mine.a: a plugin's setting must be text, a number, true or false, not an array`},
		{"date", "[plugins.mine]\na = 2020-01-01", `agent.toml:2: plugins.mine.a: a plugin's setting must be text, a number, true or false, not a date or time`},
		{"name", "[plugins.\"a b\"]\nc = 1", `agent.toml:1: [plugins."a b"]: "a b" is not the name of an executor`},
		{"built in", "[plugins.shell]\nmemory = 1",
			`agent.toml:1: [plugins.shell]: the executor shell comes with Signalman and has no such table; see [limits], [compose] and what stands above the tables`},
		{"bad limit", "[plugins.mine]\nmemory = \"much\"",
			`agent.toml:2: plugins.mine.memory: "much" is not a size; write a whole number and a unit, such as "500MB" or "1GiB"`},
		{"type of a limit", "[plugins.mine]\npids = true", `agent.toml:2: plugins.mine.pids: it must be a whole number from 0 to 4194304, not true or false`},
		{"bad glob", "[plugins.mine]\npass-env = [\"[\"]",
			`agent.toml:2: plugins.mine.pass-env: item 1: "[" is neither a variable's name nor a glob, such as "LC_*"`},
		{"the agent's own", "[plugins.mine]\npass-env = [\"A\", \"SEMAPHORE_AGENT_TOKEN\"]",
			`agent.toml:2: plugins.mine.pass-env: item 2: "SEMAPHORE_AGENT_TOKEN" is the agent's own; no plugin gets it`},
		{"verify is no plugin", "[plugins.verify]\na = 1", `agent.toml:1: plugins.verify: it must be one of off, locked, not a table`},
		{"bad verify", "[plugins]\nverify = \"yes\"", `agent.toml:2: plugins.verify: "yes" is not allowed; it must be one of off, locked`},
		{"a key of no plugin", "[plugins]\nmemory = 1", `agent.toml:2: unknown key "plugins.memory"; did you mean "limits.memory"?`},
		{"an array of tables", "[[plugins.mine]]\na = 1", `agent.toml:1: unknown key "plugins.mine"`},
		{"both", "[plugins.a]\npids = -1\n[plugins.b]\ncpus = \"x\"", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := Parse(Sources{Flags: required(), Root: true, Path: "agent.toml", File: []byte(test.file)})
			if test.want == "" {
				require.ErrorContains(t, err, "agent.toml:2: plugins.a.pids: ")
				require.ErrorContains(t, err, "agent.toml:4: plugins.b.cpus: ")
				return
			}
			require.EqualError(t, err, test.want)
			assert.NotContains(t, err.Error(), "5ecret")
		})
	}
}

func TestWithoutHub(t *testing.T) {
	c, _, err := Parse(Sources{WithoutHub: true, Root: true, File: []byte("plugin-dirs = \"/x\"")})
	require.NoError(t, err)
	assert.Equal(t, []string{"/x"}, c.PluginDirs)
	_, _, err = Parse(Sources{Root: true})
	require.ErrorContains(t, err, "endpoint and token must be set")
}

func TestDiffOfPluginTables(t *testing.T) {
	with := func(toml string) *Config {
		c, _, err := Parse(Sources{Flags: required(), Root: true, Path: "agent.toml", File: []byte(toml)})
		require.NoError(t, err)
		return c
	}
	old := with("[plugins.a]\nkey = \"5ecret1\"\nsame = 1\npids = 5\ngone = 1\n[plugins.b]\nx = 1")
	assert.Empty(t, Diff(old, with("\n[plugins.b]\nx = 1\n[plugins.a]\nkey = \"5ecret1\"\nsame = \"1\"\npids = \"5\"\ngone = 1\n")))
	var lines []string
	for _, c := range Diff(old, with("[plugins.a]\nkey = \"5ecret2\"\nsame = 1\npids = 6\n[plugins.c]\nempty = \"\"")) {
		lines = append(lines, c.String())
	}
	const when = "; applied from the next job"
	assert.Equal(t, []string{
		"plugins.a.gone: \"[hidden]\" -> (none)" + when, "plugins.a.key: changed" + when, "plugins.a.pids: 5 -> 6" + when,
		"plugins.b.x: \"[hidden]\" -> (none)" + when, "plugins.c.empty: (none) -> \"\"" + when,
	}, lines)
	assert.Empty(t, Diff(with("[plugins.a]"), with("")), "an empty table says nothing")
}
