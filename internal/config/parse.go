package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Source is a kind of place that a setting can come from.
type Source string

// The sources, from the weakest to the strongest.
const (
	FromDefault Source = "default"
	FromFile    Source = "file"
	FromEnv     Source = "environment"
	FromFlag    Source = "flag"
)

// Origin is where the value of a setting comes from.
type Origin struct {
	Source Source `json:"source"`
	// Where is the flag, the variable, or the file and line; empty for a default.
	Where string `json:"where,omitempty"`
}

// named is the origin with the option's key, as errors begin.
func (o Origin) named(key string) string {
	switch o.Source {
	case FromFile:
		return o.Where + ": " + key
	case FromEnv, FromFlag:
		return o.Where
	}
	return key
}

// Sources is all that settings are taken from.
type Sources struct {
	// Flags holds what the command line gave: for each flag's name the texts of its occurrences.
	Flags map[string][]string
	// LookupEnv finds environment variables, as os.LookupEnv does; an empty one counts as not set. Nil: there are none.
	LookupEnv func(string) (string, bool)
	// Path names the file in messages, and File is its content.
	Path string
	File []byte
	// Root is set if the agent runs as root.
	Root bool
	// WithoutHub is set for what has nothing to do with the hub: what is needed for that need not be set.
	WithoutHub bool
	// Serve is set for `supervisor serve`. Others don't look at the variables of its options, whose names are rather common words.
	Serve bool
}

func (s Sources) env(name string) string {
	if s.LookupEnv == nil {
		return ""
	}
	v, _ := s.LookupEnv(name)
	return v
}

// find gives what an option was set to by a flag or a variable.
func (s Sources) find(o option) (input, Origin, bool) {
	if texts, ok := s.Flags[o.key]; ok && o.in&inFlag != 0 {
		return textInput(texts...), Origin{FromFlag, "--" + o.key}, true
	}
	if o.in&inEnv != 0 && (s.Serve || o.group != serveGroup) {
		if v := s.env(o.env()); v != "" {
			return textInput(v), Origin{FromEnv, o.env()}, true
		}
	}
	return input{}, Origin{}, false
}

// Parse makes a Config of its sources. The warnings are for the operator. An error has a line for each thing that is
// wrong, and holds no secret.
func Parse(s Sources) (*Config, []string, error) {
	c, warnings, err := parseOptions(s)
	if err != nil {
		return nil, nil, err
	}
	more, err := c.finish(s)
	if err != nil {
		return nil, nil, err
	}
	return c, append(warnings, more...), nil
}

// parseOptions sets each option by itself.
func parseOptions(s Sources) (*Config, []string, error) {
	file, warnings, err := readFile(s.Path, s.File)
	if err != nil {
		return nil, nil, err
	}
	c := defaults()
	var problems []error
	for _, o := range options {
		in, origin, ok := s.find(o)
		if !ok {
			var f fileValue
			if f, ok = file.options[o.key]; !ok {
				continue
			}
			in, origin = f.input, f.origin
		}
		if err := o.value.set(c, in); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", origin.named(o.key), err))
			continue
		}
		c.origins[o.key] = origin
	}
	problems = append(problems, c.setPlugins(file.plugins)...)
	if len(problems) > 0 {
		return nil, nil, errors.Join(problems...)
	}
	return c, warnings, nil
}

// defaults gives each option its default. That each of them is valid is held by a test.
func defaults() *Config {
	c := &Config{origins: map[string]Origin{}}
	for _, o := range options {
		if o.def != "" {
			_ = o.value.set(c, textInput(o.def))
		}
		c.origins[o.key] = Origin{Source: FromDefault}
	}
	return c
}

// DefaultSecrets is what is masked where there is no configuration.
func DefaultSecrets() Secrets { return defaults().Secrets }

// finish does what concerns more than one option: defaults that depend on others, and rules between them.
func (c *Config) finish(s Sources) (warnings []string, err error) {
	if err := c.required(); err != nil && !s.WithoutHub {
		return nil, err
	}
	if s.Serve {
		c.takeStatsD()
	}
	if s.Serve && c.Serve.AuthTokenSecret == "" {
		return nil, errors.New("auth-token-secret must be set: use SEMAPHORE_AGENT_AUTH_TOKEN_SECRET, or --auth-token-secret")
	}
	if c.NameFromEnv != "" {
		warning, err := c.takeNameFromEnv(s)
		if err != nil {
			return nil, err
		}
		warnings = append(warnings, warning)
	}
	if c.Kubernetes.Executor {
		for key, field := range map[string]*string{
			"executors.shell": &c.Executors.Shell, "executors.dockercompose": &c.Executors.DockerCompose,
		} {
			if c.origins[key].Source == FromDefault {
				*field = "k8s"
			}
		}
	}
	if err := c.resolvePaths(s); err != nil {
		return nil, err
	}
	return warnings, c.rules()
}

// takeStatsD lets the options of serve win over the table.
func (c *Config) takeStatsD() {
	set := func(key string) bool { return c.origins[key].Source != FromDefault }
	if set("statsd-host") {
		c.StatsD.Host = c.Serve.StatsD.Host
	}
	if set("statsd-port") {
		c.StatsD.Port = c.Serve.StatsD.Port
	}
	if set("statsd-namespace") {
		c.StatsD.Namespace = c.Serve.StatsD.Namespace
	}
}

// required tells of all that is missing at once.
func (c *Config) required() error {
	var missing, ways []string
	for _, o := range options {
		if !o.required || c.isSet(o.key) || slices.ContainsFunc(o.or, c.isSet) {
			continue
		}
		missing = append(missing, o.key)
		way := fmt.Sprintf("--%s, %s, or %s = \"...\" in the config file", o.key, o.env(), o.key)
		if len(o.or) > 0 {
			way += " (or " + strings.Join(o.or, " or ") + ")"
		}
		ways = append(ways, way)
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%s must be set: use %s", strings.Join(missing, " and "), strings.Join(ways, "; "))
}

// isSet tells whether an option whose value is a text has one.
func (c *Config) isSet(key string) bool {
	o, ok := optionOf(key)
	return ok && o.value.show(c) != `""`
}

func (c *Config) takeNameFromEnv(s Sources) (warning string, err error) {
	where := c.origins["name-from-env"].named("name-from-env")
	if c.Name != "" {
		return fmt.Sprintf("%s is deprecated, and not used as name is set", where), nil
	}
	name := s.env(c.NameFromEnv)
	if name == "" {
		return "", fmt.Errorf("%s: the environment variable %s is not set", where, c.NameFromEnv)
	}
	if err := checkName(name); err != nil {
		return "", fmt.Errorf("%s: the environment variable %s: %w", where, c.NameFromEnv, err)
	}
	c.Name = name
	return fmt.Sprintf("%s is deprecated: set name instead, by --name or SEMAPHORE_AGENT_NAME or in the config file", where), nil
}

// resolvePaths makes absolute what is read again later, or told to others.
func (c *Config) resolvePaths(s Sources) error {
	if c.StateDir == "" {
		dir, err := defaultStateDir(s)
		if err != nil {
			return err
		}
		c.StateDir = dir
	}
	dirs := []*string{&c.StateDir}
	for i := range c.PluginDirs {
		dirs = append(dirs, &c.PluginDirs[i])
	}
	for _, file := range []*string{&c.TokenFile, &c.Connection.CAFile, &c.Connection.ClientCert, &c.Connection.ClientKey, &c.Kubernetes.Kubeconfig} {
		if *file != "" {
			dirs = append(dirs, file)
		}
	}
	for _, dir := range dirs {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return fmt.Errorf("cannot make %q an absolute path: %w", *dir, err)
		}
		*dir = abs
	}
	return nil
}

func defaultStateDir(s Sources) (string, error) {
	if s.Root {
		return "/var/lib/signalman", nil
	}
	// A relative XDG_STATE_HOME is to be ignored, says its specification.
	if dir := s.env("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "signalman"), nil
	}
	for _, home := range []string{s.env("HOME"), s.env("USERPROFILE")} {
		if home != "" {
			return filepath.Join(home, ".local", "state", "signalman"), nil
		}
	}
	return "", errors.New("state-dir: neither XDG_STATE_HOME nor HOME is set to derive it from; set --state-dir")
}

// rules checks what options demand of each other.
func (c *Config) rules() error {
	at := func(key string) string { return c.origins[key].named(key) }
	name := at("name")
	if c.origins["name"].Source == FromDefault && c.NameFromEnv != "" {
		name = at("name-from-env")
	}
	slots := strconv.Itoa(c.Concurrency)
	var problems []error
	refuse := func(where, format string, args ...any) {
		problems = append(problems, fmt.Errorf("%s: %s", where, fmt.Sprintf(format, args...)))
	}
	var tokens []string
	for _, key := range []string{"token", "token-file", "token-command"} {
		if c.isSet(key) {
			tokens = append(tokens, at(key))
		}
	}
	if len(tokens) > 1 {
		refuse(strings.Join(tokens, " and "), "only one of token, token-file and token-command may be set")
	}
	if cert, key := c.isSet("client-cert"), c.isSet("client-key"); cert != key {
		set, unset := "client-cert", "client-key"
		if key {
			set, unset = unset, set
		}
		refuse(at(set), "it needs %s, which isn't set", unset)
	}
	if c.JobID != "" && !c.DisconnectAfterJob {
		refuse(at("job-id"), "it needs disconnect-after-job to be true")
	}
	if c.Concurrency > 1 {
		if c.JobID != "" {
			refuse(at("job-id"), "it needs concurrency 1, which is set to %s", slots)
		}
		if c.NameIsURL() {
			refuse(name, "a pre-signed URL as the name needs concurrency 1, which is set to %s", slots)
		} else if longest := longestName - len("-"+slots); len(c.Name) > longest {
			refuse(name, "with concurrency %s it may have %d characters, as slots are named NAME-2 to NAME-%s; it has %d",
				slots, longest, slots, len(c.Name))
		}
	}
	if n := len(c.JobUsers); n > 1 && n != c.Concurrency {
		refuse(at("job-user"), "it has %d names; it must have one for all slots, or one a slot (concurrency is %s)", n, slots)
	}
	return errors.Join(problems...)
}

// DefaultStateDir is the state folder where none is set: /var/lib/signalman for root, else the XDG state folder's; "" if
// this user has no home.
func DefaultStateDir() string {
	dir, err := defaultStateDir(Sources{LookupEnv: os.LookupEnv, Root: os.Geteuid() == 0})
	if err != nil {
		return ""
	}
	return dir
}
