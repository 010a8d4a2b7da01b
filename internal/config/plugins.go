package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/signalman-ci/signalman/internal/executor/settings"
)

// pluginTables begins the names of the plugins' tables.
const pluginTables = "plugins."

// withheldEnv are the agent's own settings and tokens, which no plugin gets.
const withheldEnv = "SEMAPHORE_AGENT_"

// reserved are the keys of a plugin's table that are Signalman's, and the options that they are for one plugin.
var reserved = map[string]string{
	"pass-env": "pass-env", "memory": "limits.memory", "cpus": "limits.cpus", "pids": "limits.pids", "timeout": "limits.timeout",
}

// plugin reads the table of one plugin.
func (r *fileReader) plugin(name string, line int, table map[string]toml.Primitive) {
	if !goodExecutor.MatchString(name) {
		r.refuse(line, fmt.Sprintf("[plugins.%q]: %q is not the name of an executor", name, name))
		return
	}
	if settings.IsBuiltIn(name) {
		r.refuse(line, fmt.Sprintf("[plugins.%[1]s]: the executor %[1]s comes with Signalman and has no such table; see [limits], [compose] and what stands above the tables", name))
		return
	}
	values := map[string]fileValue{}
	r.content.plugins[name] = values
	for _, key := range slices.Sorted(maps.Keys(table)) {
		line := lineOf(r.md, table[key])
		var v any
		if err := r.md.PrimitiveDecode(table[key], &v); err != nil {
			r.refuse(line, fmt.Sprintf("%s%s.%s: it can't be read", pluginTables, name, key))
			continue
		}
		in, err := pluginInput(key, v)
		if err != nil {
			r.refuse(line, fmt.Sprintf("%s%s.%s: %s", pluginTables, name, key, err))
			continue
		}
		values[key] = fileValue{in, Origin{FromFile, r.at(line)}}
	}
}

// pluginInput is fileInput for a key in a plugin's table. What the plugin is told is text.
func pluginInput(key string, v any) (input, error) {
	if as, ok := reserved[key]; ok {
		o, _ := optionOf(as)
		return fileInput(o, v)
	}
	switch v := v.(type) {
	case string:
		return textInput(v), nil
	case bool:
		return textInput(strconv.FormatBool(v)), nil
	case int64:
		return textInput(strconv.FormatInt(v, 10)), nil
	case float64:
		return textInput(strconv.FormatFloat(v, 'f', -1, 64)), nil
	}
	return input{}, fmt.Errorf("a plugin's setting must be text, a number, true or false, not %s", typeName(v))
}

// setPlugins makes plugins of their tables. The options themselves are set by then.
func (c *Config) setPlugins(tables map[string]map[string]fileValue) (problems []error) {
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		p := Plugin{Name: name, Settings: map[string]Secret{}, origins: map[string]Origin{}}
		one := &Config{Limits: c.Limits} // the options as they are for this plugin
		for _, key := range slices.Sorted(maps.Keys(tables[name])) {
			v := tables[name][key]
			p.origins[key] = v.origin
			as, ok := reserved[key]
			if !ok {
				p.Settings[key] = Secret(v.input.last())
				continue
			}
			o, _ := optionOf(as)
			if err := o.value.set(one, v.input); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", v.origin.named(pluginTables+name+"."+key), err))
			}
		}
		for i, glob := range one.PassEnv {
			if strings.HasPrefix(glob, withheldEnv) {
				problems = append(problems, fmt.Errorf("%s: item %d: %q is the agent's own; no plugin gets it",
					p.origins["pass-env"].named(pluginTables+name+".pass-env"), i+1, glob))
			}
		}
		p.PassEnv, p.Limits = one.PassEnv, one.Limits
		c.Plugins = append(c.Plugins, p)
	}
	return problems
}

// shown are the plugin's settings for people. What is its own may be secret.
func (p Plugin) shown() []Setting {
	var all []Setting
	for _, key := range slices.Sorted(maps.Keys(p.origins)) {
		s := Setting{Key: pluginTables + p.Name + "." + key, Origin: p.origins[key]}
		if as, ok := reserved[key]; ok {
			o, _ := optionOf(as)
			s.Value = o.value.show(&Config{PassEnv: p.PassEnv, Limits: p.Limits})
		} else {
			s.Value = tomlQuote(p.Settings[key].String())
		}
		all = append(all, s)
	}
	return all
}
