package config

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// When is when a running supervisor takes up a changed setting.
type When string

// The times.
const (
	// Now is at once.
	Now When = "now"
	// NextJob is as soon as a slot has no job: a running job keeps the settings it started with.
	NextJob When = "next-job"
	// NewRegistration is as soon as a slot has no job, too; it then leaves the hub and registers anew.
	NewRegistration When = "new-registration"
	// Restart is when the supervisor is started the next time, or upgraded in place.
	Restart When = "restart"
)

// String says it in words.
func (w When) String() string {
	switch w {
	case Now:
		return "applied now"
	case NextJob:
		return "applied from the next job"
	case NewRegistration:
		return "needs a new registration, which each slot does when it is free"
	case Restart:
		return "needs a restart; `supervisor upgrade` is one, and jobs go on"
	default:
		return string(w)
	}
}

// Change is one setting that is another now.
type Change struct {
	Key string `json:"key"`
	// Old and New are written as in the file; secrets are hidden. "" is a key of a plugin's table that isn't there.
	Old  string `json:"old"`
	New  string `json:"new"`
	When When   `json:"when"`
}

// String is the change in one line.
func (c Change) String() string {
	if c.Old == c.New { // a secret
		return c.Key + ": changed; " + c.When.String()
	}
	return c.Key + ": " + cmp.Or(c.Old, "(none)") + " -> " + cmp.Or(c.New, "(none)") + "; " + c.When.String()
}

// Diff lists the settings that differ, in the order of the example file.
func Diff(old, next *Config) []Change {
	var changes []Change
	for _, o := range options {
		if reflect.DeepEqual(o.value.get(old), o.value.get(next)) {
			continue
		}
		changes = append(changes, Change{Key: o.key, Old: o.value.show(old), New: o.value.show(next), When: o.takenUp()})
	}
	return append(changes, diffPlugins(old.Plugins, next.Plugins)...)
}

// diffPlugins does it for the tables of plugins.
func diffPlugins(old, next []Plugin) (changes []Change) {
	was, is := tablesOf(old), tablesOf(next)
	keys := maps.Clone(was)
	maps.Copy(keys, is)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if was[key].raw != is[key].raw {
			changes = append(changes, Change{Key: key, Old: was[key].shown, New: is[key].shown, When: NextJob})
		}
	}
	return changes
}

// tableValue is what a key of a plugin's table is set to, for comparing and for people.
type tableValue struct{ raw, shown string }

func tablesOf(plugins []Plugin) map[string]tableValue {
	all := map[string]tableValue{}
	for _, p := range plugins {
		for _, s := range p.shown() {
			v := tableValue{"is " + s.Value, s.Value}
			if own, ok := p.Settings[strings.TrimPrefix(s.Key, pluginTables+p.Name+".")]; ok {
				v.raw = "is " + own.Reveal()
			}
			all[s.Key] = v
		}
	}
	return all
}
