package config

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write agent.toml.example anew")

const examplePath = "../../agent.toml.example"

func TestEveryOptionIsWellFormed(t *testing.T) {
	seen := map[string]bool{}
	for _, o := range options {
		t.Run(o.key, func(t *testing.T) {
			assert.False(t, seen[o.key], "is in the table twice")
			seen[o.key] = true
			assert.NotEmpty(t, o.doc)
			assert.NotEmpty(t, o.group)
			if o.def != "" {
				require.NoError(t, o.value.set(&Config{}, textInput(o.def)))
			}
			if o.in&inFlag != 0 && !o.value.boolean {
				assert.NotEmpty(t, o.arg)
			}
			if o.in&inEnv != 0 {
				assert.Regexp(t, `^SEMAPHORE_AGENT_[A-Z_]+$`, o.env())
			}
			assert.LessOrEqual(t, strings.Count(comment(o.doc), "\n"), 3, "the example has up to 3 lines for each")
		})
	}
}

func comment(text string) string {
	var b strings.Builder
	writeComment(&b, text)
	return b.String()
}

// TestEveryOptionHasItsOwnField catches an option that is bound to another one's field.
func TestEveryOptionHasItsOwnField(t *testing.T) {
	for _, o := range options {
		t.Run(o.key, func(t *testing.T) {
			c := defaults()
			before := c.Settings()
			require.NoError(t, o.value.set(c, textInput(samples[o.key][0])))
			for i, s := range c.Settings() {
				if s.Key == o.key {
					assert.NotEqual(t, before[i].Value, s.Value)
				} else {
					assert.Equal(t, before[i].Value, s.Value, s.Key)
				}
			}
		})
	}
}

func TestShownValuesParseAgain(t *testing.T) {
	for _, o := range options {
		if o.in&inFile == 0 || o.key == "token" || o.key == "env-vars" {
			continue
		}
		t.Run(o.key, func(t *testing.T) {
			c := defaults()
			require.NoError(t, o.value.set(c, textInput(samples[o.key][0])))
			again, _, err := parseOptions(Sources{Path: "agent.toml", File: []byte(o.key + " = " + o.value.show(c))})
			require.NoError(t, err)
			assert.Equal(t, o.value.show(c), o.value.show(again))
		})
	}
}

func TestDefaults(t *testing.T) {
	c, warnings, err := Parse(Sources{Flags: required(), Root: true})
	require.NoError(t, err)
	assert.Empty(t, warnings)
	c.origins = nil
	assert.Equal(t, &Config{
		Endpoint: "hub.example.com", Token: "t0ken", Concurrency: 1, OnUnknown: OnUnknownRegister,
		StateDir: "/var/lib/signalman", UploadJobLogs: UploadNever,
		Kubernetes: Kubernetes{PodStartTimeout: 300e9},
		Compose:    Compose{PullPolicy: "if-not-present", MountDockerSocket: true},
		Executors:  Executors{Shell: "shell", DockerCompose: "compose"},
		Log:        Log{Level: "info", CompressionSize: 100e6, FlushTimeout: 300e9, MaxDisk: GiB},
		Admission:  Admission{MinDisk: 512 * MiB, MinInodes: 5000, MinMemory: 128 * MiB},
		Secrets: Secrets{
			EnvVars: []string{"*_TOKEN", "*_SECRET", "*_PASSWORD", "*_KEY", "*_CONNECTION_STRING", "*PASSPHRASE*"}, Files: []string{"*"},
		},
		Jobs:   Jobs{Keep: 168 * 3600e9, StopGrace: 5e9},
		StatsD: StatsD{Port: 8125, Namespace: "agent.prod"}, Verify: VerifyOff,
	}, c)
}

// TestExample holds agent.toml.example to the table. Write it anew with: go test ./internal/config -update
func TestExample(t *testing.T) {
	if *update {
		require.NoError(t, os.WriteFile(examplePath, []byte(Example()), 0o644))
	}
	data, err := os.ReadFile(filepath.FromSlash(examplePath))
	require.NoError(t, err)
	example := string(data)
	require.Equal(t, Example(), example, "run: go test ./internal/config -update")

	_, _, err = Parse(Sources{Path: "agent.toml", File: data})
	require.EqualError(t, err, "endpoint and token must be set: use --endpoint, SEMAPHORE_AGENT_ENDPOINT, or "+
		"endpoint = \"...\" in the config file; --token, SEMAPHORE_AGENT_TOKEN, or token = \"...\" in the config file "+
		"(or token-file or token-command)")

	plain := parsed(t, Sources{Flags: required(), Root: true})
	assert.Equal(t, plain.String(), parsed(t, Sources{Flags: required(), Root: true, File: data}).String())

	// All keys are there, and what is commented out is the default.
	all := regexp.MustCompile(`(?m)^# ([a-z-]+ = )`).ReplaceAllString(example, "$1")
	assert.Equal(t, plain.String(), parsed(t, Sources{Flags: required(), Root: true, File: []byte(all)}).String())
	values, warnings, err := readFile("agent.toml", []byte(all))
	require.NoError(t, err)
	assert.Empty(t, warnings)
	for _, o := range options {
		if o.in&inFile != 0 {
			assert.Contains(t, values.options, o.key)
		} else {
			assert.Contains(t, example, "# "+o.env()+"=")
		}
	}
}

func parsed(t *testing.T, s Sources) *Config {
	t.Helper()
	c, _, err := Parse(s)
	require.NoError(t, err)
	return c
}

func required() map[string][]string {
	return map[string][]string{"endpoint": {"hub.example.com"}, "token": {"t0ken"}}
}
