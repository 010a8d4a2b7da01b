package config

import "strings"

// Setting is one option's value for people to read.
type Setting struct {
	// Key is the flag's name; with a dot it is a key in a table of the file.
	Key string `json:"key"`
	// Value is written as in the file; secrets are hidden.
	Value  string `json:"value"`
	Origin Origin `json:"origin"`
}

// Settings lists all options, with where their values come from, and what is set in the tables of plugins.
func (c *Config) Settings() []Setting {
	all := make([]Setting, 0, len(options))
	for _, o := range options {
		all = append(all, Setting{Key: o.key, Value: o.value.show(c), Origin: c.origins[o.key]})
	}
	for _, p := range c.Plugins {
		all = append(all, p.shown()...)
	}
	return all
}

// Origin is where an option's value comes from.
func (c *Config) Origin(key string) Origin { return c.origins[key] }

// String lists the settings, without secrets.
func (c Config) String() string {
	var b strings.Builder
	for _, s := range c.Settings() {
		b.WriteString(s.Key + " = " + s.Value + "\n")
	}
	return b.String()
}

// GoString keeps secrets out of %#v.
func (c Config) GoString() string { return c.String() }
