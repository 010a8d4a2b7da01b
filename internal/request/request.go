// Package request reads job requests as the hub sends them and as people write them in YAML.
package request

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// sanitized is what the hub puts in the place of secrets once it has given out a payload.
const sanitized = "{SANITIZED}"

// Request is a job request that was understood.
type Request struct {
	Job *protocol.Job
	// Executor is what the hub asks for: "shell", "dockercompose" or a worker's name.
	Executor string
	Logger   Logger
}

// Logger says where a job's log goes.
type Logger struct {
	Method string `json:"method"`
	URL    string `json:"url"`
	// Token is the first one to use; another can be had of the hub.
	Token string `json:"token"`
	// MaxSizeBytes is what the hub says it takes; 0 if it says nothing.
	MaxSizeBytes int64 `json:"max_size_in_bytes"`
}

// Callbacks are where a job's end is told, for jobs that come without a hub's slot.
type Callbacks struct {
	Finished         string `json:"finished"`
	TeardownFinished string `json:"teardown_finished"`
	// Token goes with the calls; it may be "".
	Token string `json:"token"`
}

// ParseCallbacks reads those of a request; there may be none.
func ParseCallbacks(raw []byte) (Callbacks, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return Callbacks{}, fmt.Errorf("the job request is not a JSON object: %w", plain(err))
	}
	var c Callbacks
	return c, field(fields, "callbacks", &c)
}

// JobID reads the id of a request's job alone; "" if there is none.
func JobID(raw []byte) string {
	var id struct {
		JobID string `json:"job_id"`
	}
	if json.Unmarshal(raw, &id) != nil {
		return ""
	}
	return id.JobID
}

// The parts of a request as they come; every field may be missing or null.
type (
	wireCommand struct {
		Directive string `json:"directive"`
		Alias     string `json:"alias"`
	}
	wireEnv struct {
		Name  string  `json:"name"`
		Value *string `json:"value"`
	}
	wireFile struct {
		Path    string `json:"path"`
		Content string `json:"content"`
		Mode    string `json:"mode"`
	}
	wireContainer struct {
		Name       string     `json:"name"`
		Image      string     `json:"image"`
		Command    string     `json:"command"`
		Entrypoint string     `json:"entrypoint"`
		User       string     `json:"user"`
		Env        []wireEnv  `json:"env_vars"`
		Files      []wireFile `json:"files"`
	}
	wireCredentials struct {
		Env   []wireEnv  `json:"env_vars"`
		Files []wireFile `json:"files"`
	}
	wireCompose struct {
		Containers        []wireContainer   `json:"containers"`
		Credentials       []wireCredentials `json:"image_pull_credentials"`
		HostSetupCommands []wireCommand     `json:"host_setup_commands"`
	}
)

// LooksLikeOne tells an answer that may be a job request from something else in JSON, as a proxy may answer: it is an object with at
// least one of the fields that every hub sends.
func LooksLikeOne(raw []byte) bool {
	var fields struct {
		JobID    json.RawMessage `json:"job_id"`
		Commands json.RawMessage `json:"commands"`
		Logger   json.RawMessage `json:"logger"`
	}
	return json.Unmarshal(raw, &fields) == nil && (fields.JobID != nil || fields.Commands != nil || fields.Logger != nil)
}

// Parse reads the request of the job with this id. Whatever is wrong with the rest, the logger is returned if it can be
// read, so that the job's log can say what is. The error is one line that names the field.
func Parse(raw []byte, jobID string) (*Request, Logger, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, Logger{}, fmt.Errorf("the job request is not a JSON object: %w", plain(err))
	}
	if fields == nil {
		return nil, Logger{}, errors.New("the job request is null")
	}
	var logger Logger
	if err := field(fields, "logger", &logger); err != nil {
		return nil, Logger{}, err
	}
	req, err := parseJob(fields, jobID)
	if err != nil {
		return nil, logger, err
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) { // where parseJob doesn't look: tokens, and fields it doesn't know
		if at, ok := findSanitized(shown(name), fields[name]); ok {
			return nil, logger, replaced(at)
		}
	}
	if !LooksLikeOne(raw) {
		return nil, logger, errors.New("the job request has neither job_id nor commands nor logger: it is something else's answer")
	}
	req.Logger = logger
	return req, logger, nil
}

func parseJob(fields map[string]json.RawMessage, jobID string) (*Request, error) {
	var (
		id, name, executor               string
		commands, always, onPass, onFail []wireCommand
		env                              []wireEnv
		files                            []wireFile
		keys                             []string
		compose                          *wireCompose
	)
	for _, f := range []struct {
		name string
		into any
	}{
		{"job_id", &id}, {"job_name", &name}, {"executor", &executor},
		{"commands", &commands}, {"epilogue_always_commands", &always},
		{"epilogue_on_pass_commands", &onPass}, {"epilogue_on_fail_commands", &onFail},
		{"env_vars", &env}, {"files", &files}, {"ssh_public_keys", &keys}, {"compose", &compose},
	} {
		if err := field(fields, f.name, f.into); err != nil {
			return nil, err
		}
	}
	if id == "" {
		id = jobID
	}
	if err := jobdir.CheckID(id); err != nil {
		return nil, err
	}
	if id != jobID {
		return nil, fmt.Errorf("job_id is %q, but job %.200q was asked for", id, jobID)
	}
	job := &protocol.Job{
		ID: id, Name: name,
		Commands: toCommands(commands), EpilogueAlways: toCommands(always),
		EpilogueOnPass: toCommands(onPass), EpilogueOnFail: toCommands(onFail),
	}
	var err error
	if job.Env, err = toEnv("env_vars", env); err != nil {
		return nil, err
	}
	if job.Files, err = toFiles("files", files); err != nil {
		return nil, err
	}
	for i, key := range keys {
		text, err := decode(fmt.Sprintf("ssh_public_keys[%d]", i), key)
		if err != nil {
			return nil, err
		}
		job.SSHPublicKeys = append(job.SSHPublicKeys, string(text))
	}
	if job.Compose, err = toCompose(compose); err != nil {
		return nil, err
	}
	if executor == "" {
		executor = "shell"
	}
	return &Request{Job: job, Executor: executor}, nil
}

// field reads one top-level field; null and a missing one leave the value as it is.
func field(fields map[string]json.RawMessage, name string, into any) error {
	raw, ok := fields[name]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%s of the job request: %w", name, plain(err))
	}
	return nil
}

// plain says what is wrong with JSON without the names of our types.
func plain(err error) error {
	var typeErr *json.UnmarshalTypeError
	if !errors.As(err, &typeErr) {
		return err
	}
	want := map[string]string{"string": "a text", "int64": "a number"}[typeErr.Type.String()]
	switch {
	case want != "":
	case typeErr.Type.Kind().String() == "slice":
		want = "a list"
	default:
		want = "an object"
	}
	have, _, _ := strings.Cut(typeErr.Value, " ") // a number comes with its value
	switch have {
	case "string":
		have = "a text"
	case "array":
		have = "a list"
	case "object":
		have = "an object"
	case "bool":
		have = "true or false"
	default:
		have = "a " + have
	}
	if have == want { // 1.5, or more than we count to
		want = "a whole number of usual size"
	}
	return fmt.Errorf("%s is %s where %s belongs", cmp.Or(typeErr.Field, "it"), have, want)
}

// shown makes a text from outside fit for an error message: one line, and not too long.
func shown(text string) string {
	if len(text) > 200 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Sprintf("%.200q", text)
	}
	return text
}

func toCommands(in []wireCommand) []protocol.Command {
	var out []protocol.Command
	for _, c := range in {
		out = append(out, protocol.Command(c))
	}
	return out
}

func toEnv(where string, in []wireEnv) ([]protocol.EnvVar, error) {
	var out []protocol.EnvVar
	for i, v := range in {
		at := fmt.Sprintf("%s[%d]", where, i)
		if !protocol.ValidEnvName(v.Name) {
			return nil, fmt.Errorf("%s: %.200q can't be the name of an environment variable (letters, digits and _, no digit first)", at, v.Name)
		}
		at += " (" + shown(v.Name) + ")"
		value := ""
		if v.Value != nil {
			raw, err := decode(at, *v.Value)
			if err != nil {
				return nil, err
			}
			value = string(raw)
		}
		if strings.ContainsRune(value, 0) {
			return nil, fmt.Errorf("%s: the value holds a NUL byte, which no environment variable can", at)
		}
		out = append(out, protocol.EnvVar{Name: v.Name, Value: value})
	}
	return out, nil
}

func toFiles(where string, in []wireFile) ([]protocol.File, error) {
	var out []protocol.File
	for i, f := range in {
		at := fmt.Sprintf("%s[%d]", where, i)
		if f.Path == "" || strings.ContainsRune(f.Path, 0) {
			return nil, fmt.Errorf("%s: %.200q can't be the path of a file", at, f.Path)
		}
		at += " (" + shown(f.Path) + ")"
		content, err := decode(at, f.Content)
		if err != nil {
			return nil, err
		}
		mode, err := parseMode(f.Mode)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		out = append(out, protocol.File{Path: f.Path, Content: content, Mode: mode})
	}
	return out, nil
}

// parseMode reads an octal file mode; none is 0644.
func parseMode(text string) (fs.FileMode, error) {
	if text == "" {
		return 0o644, nil
	}
	mode, err := strconv.ParseUint(text, 8, 32)
	if err != nil || mode > 0o777 {
		return 0, fmt.Errorf("mode %.200q is no file mode (octal, 0 to 0777)", text)
	}
	return fs.FileMode(mode), nil
}

func decode(at, text string) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if text == sanitized || string(raw) == sanitized {
		return nil, replaced(at)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: not base64: %w", at, err)
	}
	return raw, nil
}

// replaced says that the job can't run, as the hub no longer gives out what it needs.
func replaced(at string) error {
	return fmt.Errorf("%s: the hub has replaced it by %s: a payload is given out once, and that answer was lost; run the job again", at, sanitized)
}

// findSanitized looks for a value that the hub has replaced, and tells where it is.
func findSanitized(at string, raw json.RawMessage) (string, bool) {
	var value any
	if json.Unmarshal(raw, &value) != nil {
		return "", false
	}
	var find func(at string, value any) (string, bool)
	find = func(at string, value any) (string, bool) {
		switch value := value.(type) {
		case string:
			return at, value == sanitized
		case []any:
			for i, item := range value {
				if at, ok := find(fmt.Sprintf("%s[%d]", at, i), item); ok {
					return at, true
				}
			}
		case map[string]any:
			for _, key := range slices.Sorted(maps.Keys(value)) {
				if at, ok := find(at+"."+shown(key), value[key]); ok {
					return at, true
				}
			}
		}
		return "", false
	}
	return find(at, value)
}

func toCompose(in *wireCompose) (*protocol.Compose, error) {
	if in == nil || len(in.Containers) == 0 && len(in.Credentials) == 0 && len(in.HostSetupCommands) == 0 {
		return nil, nil
	}
	out := &protocol.Compose{HostSetupCommands: toCommands(in.HostSetupCommands)}
	for i, c := range in.Containers {
		at := fmt.Sprintf("compose.containers[%d]", i)
		env, err := toEnv(at+".env_vars", c.Env)
		if err != nil {
			return nil, err
		}
		files, err := toFiles(at+".files", c.Files)
		if err != nil {
			return nil, err
		}
		out.Containers = append(out.Containers, protocol.Container{
			Name: c.Name, Image: c.Image, Command: c.Command, Entrypoint: c.Entrypoint, User: c.User, Env: env, Files: files,
		})
	}
	for i, c := range in.Credentials {
		at := fmt.Sprintf("compose.image_pull_credentials[%d]", i)
		env, err := toEnv(at+".env_vars", c.Env)
		if err != nil {
			return nil, err
		}
		files, err := toFiles(at+".files", c.Files)
		if err != nil {
			return nil, err
		}
		out.ImagePullCredentials = append(out.ImagePullCredentials, protocol.PullCredentials{Env: env, Files: files})
	}
	return out, nil
}

// WithoutTokens gives the request as it may be kept on disk: without the tokens for log and callbacks.
func WithoutTokens(raw []byte) []byte {
	var fields map[string]any
	if json.Unmarshal(raw, &fields) != nil || fields == nil {
		return raw // not to be understood anyway
	}
	for _, part := range []string{"logger", "callbacks"} {
		if m, ok := fields[part].(map[string]any); ok {
			delete(m, "token")
		}
	}
	out, err := json.Marshal(fields)
	if err != nil {
		return raw
	}
	return out
}
