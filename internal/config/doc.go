// Package config is what a user sets for `supervisor start`: flags, environment variables and a TOML file.
//
// The table in options.go is the one place that knows the settings. The command line's flags and their help, the names of
// the environment variables, the keys of the file and agent.toml.example all come from it. A flag wins over the environment,
// which wins over the file, which wins over the default; [Config.Settings] says which one it was.
//
// The work is done by [Parse], which needs neither a command line nor the process's environment; [Load] gathers both for it.
// To take up a changed file, keep what [Gather] gave, put the new content into [Sources.File] and parse again.
//
// urfave/cli's altsrc isn't used: it ignores keys it doesn't know, has no line numbers, tables or mixed lists, and needs a
// command line for each reading of the file.
package config
