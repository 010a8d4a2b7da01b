package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// looksLikeYAML tells whether data is a YAML mapping with a key that is an option, as the existing agent's files are.
func looksLikeYAML(data []byte) bool {
	var keys map[string]any
	if yaml.Unmarshal(data, &keys) != nil {
		return false
	}
	for key := range keys {
		if _, ok := optionOf(key); ok {
			return true
		}
	}
	return false
}

// yamlError refuses a YAML file, and writes its settings as TOML, without the secrets.
func yamlError(path string, data []byte) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%[1]s: this is a YAML file, and the config file must be TOML; make one with: supervisor config import %[1]s", path)
	if lines := yamlAsTOML(data); len(lines) > 0 {
		b.WriteString("; this one becomes\n  " + strings.Join(lines, "\n  "))
	}
	return errors.New(b.String())
}

// yamlAsTOML has a line for each key of the YAML file; those that begin with "#" are what can't be taken over.
func yamlAsTOML(data []byte) []string {
	lines, problems := convertYAML(data, func(o option, _ any, c *Config) string { return o.value.show(c) })
	for _, p := range problems {
		lines = append(lines, "# "+p)
	}
	return lines
}

// convertYAML writes the settings of a YAML file as lines of TOML, and tells what can't be taken over. write gives a setting's value, which
// was set in the Config.
func convertYAML(data []byte, write func(option, any, *Config) string) (lines, problems []string) {
	var keys map[string]any
	if yaml.Unmarshal(data, &keys) != nil {
		return nil, nil
	}
	for _, o := range options {
		v, ok := keys[o.key]
		delete(keys, o.key)
		if !ok || v == nil || o.in&inFile == 0 {
			continue
		}
		var c Config
		v = wholeNumbers(v)
		in, err := fileInput(o, v)
		if err == nil {
			err = o.value.set(&c, in)
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s: %s", o.key, err))
			continue
		}
		lines = append(lines, o.key+" = "+write(o, v, &c))
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		problems = append(problems, unknownKey(key))
	}
	return lines, problems
}

// Import makes the content of an agent.toml of the existing agent's YAML file, with its secrets. It lists what could not be taken over,
// one line each; the TOML has that as comments.
func Import(path string, data []byte) (toml string, problems []string, err error) {
	if len(data) > largestFile {
		return "", nil, fmt.Errorf("%s: it is larger than a config file can be (%s)", path, Size(largestFile))
	}
	var keys map[string]any
	if err := yaml.Unmarshal(data, &keys); err != nil { // the parser's message can hold a piece of the file, which may be a secret
		return "", nil, fmt.Errorf("%s: it is not a YAML file of KEY: VALUE lines", path)
	}
	lines, problems := convertYAML(data, func(_ option, v any, _ *Config) string { return tomlValue(v) })
	if len(lines) == 0 {
		return "", problems, fmt.Errorf("%s: no setting in it is known", path)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Made of %s. All settings are in agent.toml.example.\n\n", filepath.Base(path))
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	for i, p := range problems {
		if i == 0 {
			b.WriteString("\n# Not taken over:\n")
		}
		b.WriteString("# " + strings.ReplaceAll(p, "\n", " ") + "\n")
	}
	return b.String(), problems, nil
}

// tomlValue writes what fileInput takes.
func tomlValue(v any) string {
	switch v := v.(type) {
	case string:
		return tomlQuote(v)
	case []any:
		var items []string
		for _, item := range v {
			items = append(items, tomlValue(item))
		}
		return "[" + strings.Join(items, ", ") + "]"
	case map[string]any:
		var items []string
		for _, k := range slices.Sorted(maps.Keys(v)) {
			items = append(items, tomlQuote(k)+" = "+tomlValue(v[k]))
		}
		return "{" + strings.Join(items, ", ") + "}"
	default: // a number, true or false
		return fmt.Sprint(v)
	}
}

// wholeNumbers makes of the numbers that YAML gives what TOML would give.
func wholeNumbers(v any) any {
	if f, ok := v.(float64); ok && f == math.Trunc(f) && math.Abs(f) < 1e15 {
		return int64(f)
	}
	if m, ok := v.(map[string]any); ok {
		for k := range m {
			m[k] = wholeNumbers(m[k])
		}
	}
	return v
}
