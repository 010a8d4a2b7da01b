package config

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Each option's change is found, and no other's. A pair of equal configurations, made apart, has none.
func TestDiff(t *testing.T) {
	for _, o := range options {
		t.Run(o.key, func(t *testing.T) {
			var texts []string
			for _, text := range samples[o.key] {
				if text != "" {
					texts = append(texts, text)
				}
			}
			require.GreaterOrEqual(t, len(texts), 2)
			set := func(text string) *Config {
				c := defaults()
				require.NoError(t, o.value.set(c, textInput(text)))
				return c
			}
			assert.Empty(t, Diff(set(texts[0]), set(texts[0])))
			changes := Diff(set(texts[0]), set(texts[1]))
			require.Len(t, changes, 1)
			c := changes[0]
			assert.Equal(t, o.key, c.Key)
			assert.Equal(t, o.takenUp(), c.When)
			assert.Equal(t, o.value.show(set(texts[1])), c.New)
			assert.Contains(t, c.String(), o.key+": ")
			assert.Contains(t, c.String(), c.When.String())
		})
	}
}

// What can be set in the file can change while the supervisor runs; what can't is taken from flags and variables at its start only.
func TestOnlyTheFileIsTakenUp(t *testing.T) {
	for _, o := range options {
		if o.in&inFile == 0 {
			assert.Equal(t, Restart, o.takenUp(), o.key)
		}
	}
}

func TestDiffShowsNoSecret(t *testing.T) {
	one, two := defaults(), defaults()
	one.Token, two.Token = "s3cret-one", "s3cret-two"
	one.EnvVars, two.EnvVars = []EnvVar{{"A", "s3cret-one"}}, []EnvVar{{"A", "s3cret-two"}}
	changes := Diff(one, two)
	require.Len(t, changes, 2)
	for _, c := range changes {
		assert.NotContains(t, c.String()+c.Old+c.New, "s3cret")
		assert.Contains(t, c.String(), ": changed; ")
	}
}

func TestImport(t *testing.T) {
	toml, problems, err := Import("/etc/old.yaml", []byte(`# comment
endpoint: "hub.example.com"
token: "5ecret"
no-https: false
disconnect-after-idle-timeout: 300
env-vars:
  - A=5ecret,with a comma
files:
  - /a:/b
upload-job-logs: sometimes
nme: x
`))
	require.NoError(t, err)
	assert.Equal(t, `# Made of old.yaml. All settings are in agent.toml.example.

endpoint = "hub.example.com"
token = "5ecret"
no-https = false
disconnect-after-idle-timeout = 300
env-vars = ["A=5ecret,with a comma"]
files = ["/a:/b"]

# Not taken over:
# upload-job-logs: "sometimes" is not allowed; it must be one of never, when-trimmed, always
# unknown key "nme"; did you mean "name"?
`, toml)
	assert.Len(t, problems, 2)

	c, _, err := Parse(Sources{Path: "agent.toml", File: []byte(toml), Root: true})
	require.NoError(t, err)
	assert.Equal(t, "5ecret", c.Token.Reveal())
	assert.Equal(t, []EnvVar{{"A", "5ecret,with a comma"}}, c.EnvVars)
}

// Each option that can be in a file comes through as it was.
func TestImportOfEachOption(t *testing.T) {
	for _, o := range options {
		if o.in&inFile == 0 || o.in&inFlag == 0 { // tables are Signalman's own
			continue
		}
		for _, text := range samples[o.key] {
			toml, problems, err := Import("a.yaml", []byte(o.key+": "+tomlQuote(text)+"\n"))
			require.NoError(t, err)
			assert.Empty(t, problems)
			want := defaults()
			require.NoError(t, o.value.set(want, textInput(text)))
			got, _, err := parseOptions(Sources{Path: "agent.toml", File: []byte(toml)})
			require.NoError(t, err, toml)
			assert.Empty(t, Diff(want, got), o.key)
		}
	}
}

func TestImportOfWhatIsNoAgentsFile(t *testing.T) {
	for name, file := range map[string]string{"no YAML": "a: [", "a list": "- s3cret", "nothing": "", "other keys": "a: s3cret"} {
		_, _, err := Import("a.yaml", []byte(file))
		require.ErrorContains(t, err, "a.yaml: ", name)
		assert.NotContains(t, err.Error(), "s3cret")
	}
	_, _, err := Import("a.yaml", make([]byte, largestFile+1))
	require.ErrorContains(t, err, "larger")
}

// The table in docs/reload.md names what isn't applied from the next job.
func TestReloadIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/reload.md")
	require.NoError(t, err)
	for when, begin := range map[When]string{Now: "| applied now |", NewRegistration: "| needs a new registration |", Restart: "| needs a restart |"} {
		var keys []string
		for _, o := range options {
			if o.takenUp() == when && o.in&inFile != 0 && o.key != "config-file" {
				keys = append(keys, "`"+o.key+"`")
			}
		}
		assert.Contains(t, string(page), begin+" "+strings.Join(keys, ", ")+" |\n")
	}
}
