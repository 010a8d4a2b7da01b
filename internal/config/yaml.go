package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
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
	fmt.Fprintf(&b, "%s: this is a YAML file, and the config file must be TOML: write key = \"value\" instead of key: value, "+
		"in a file that ends in .toml", path)
	if lines := yamlAsTOML(data); len(lines) > 0 {
		b.WriteString("; this one becomes\n  " + strings.Join(lines, "\n  "))
	}
	return errors.New(b.String())
}

func yamlAsTOML(data []byte) []string {
	var keys map[string]any
	if yaml.Unmarshal(data, &keys) != nil {
		return nil
	}
	var lines []string
	for _, o := range options {
		v, ok := keys[o.key]
		delete(keys, o.key)
		if !ok || v == nil || o.in&inFile == 0 {
			continue
		}
		var c Config
		in, err := fileInput(o, wholeNumbers(v))
		if err == nil {
			err = o.value.set(&c, in)
		}
		if err != nil {
			lines = append(lines, fmt.Sprintf("# %s: %s", o.key, err))
			continue
		}
		lines = append(lines, o.key+" = "+o.value.show(&c))
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		lines = append(lines, "# "+unknownKey(key))
	}
	return lines
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
