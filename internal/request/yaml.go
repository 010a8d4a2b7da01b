package request

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"
	"sigs.k8s.io/yaml"
)

// commandLists are the fields of a request that hold commands.
var commandLists = []string{
	"commands", "epilogue_always_commands", "epilogue_on_pass_commands", "epilogue_on_fail_commands",
}

// hostCommands is the field of compose that holds commands.
const hostCommands = "host_setup_commands"

// FromYAML turns a job that a person wrote into a request as the hub sends it, and gives its id. The fields are those of the
// request; for a person's sake a command may be plain text, env is a table of plain variables, and a file may have text
// instead of base64 content, in the job, its containers and its image pull credentials. A job without an id gets one, and one
// with containers their executor.
func FromYAML(raw []byte) (jobID string, req []byte, err error) {
	fields, err := readYAML(raw)
	if err != nil {
		return "", nil, fmt.Errorf("not a job in YAML: %w", err)
	}
	if fields == nil {
		return "", nil, fmt.Errorf("not a job in YAML: it is empty")
	}
	if err := plainJob(fields); err != nil {
		return "", nil, err
	}
	switch id := fields["job_id"].(type) {
	case nil:
	case string:
		jobID = id
	default:
		return "", nil, fmt.Errorf("job_id: it must be a text, in quotes if it looks like something else")
	}
	if jobID == "" {
		jobID = uuid.NewString()
		fields["job_id"] = jobID
	}
	req, err = json.Marshal(fields)
	if err != nil {
		return "", nil, fmt.Errorf("not a job in YAML: %w", err)
	}
	return jobID, req, nil
}

// readYAML reads a table. Numbers stay as they are written. Its error is one line.
func readYAML(raw []byte) (map[string]any, error) {
	asJSON, err := yaml.YAMLToJSONStrict(raw)
	if err != nil {
		return nil, errors.New(strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " "))
	}
	decoder := json.NewDecoder(bytes.NewReader(asJSON))
	decoder.UseNumber()
	var fields map[string]any
	if err := decoder.Decode(&fields); err != nil {
		return nil, plain(err)
	}
	return fields, nil
}

// plainJob turns all of a job that is in a person's form into the hub's.
func plainJob(fields map[string]any) error {
	known := append(slices.Clone(commandLists), "job_id", "job_name", "executor", "env_vars", "env", "files",
		"ssh_public_keys", "compose", "callbacks", "logger")
	if err := checkFields("a job", fields, known); err != nil {
		return err
	}
	for _, name := range commandLists {
		plainCommands(fields, name)
	}
	if err := plainPlace(fields); err != nil {
		return err
	}
	compose, ok := fields["compose"].(map[string]any)
	if !ok {
		return nil // Parse says what is wrong
	}
	if err := checkFields("compose", compose, []string{"containers", hostCommands, "image_pull_credentials"}); err != nil {
		return err
	}
	plainCommands(compose, hostCommands)
	if containers, _ := compose["containers"].([]any); len(containers) > 0 && fields["executor"] == nil {
		fields["executor"] = "dockercompose" // as the hub says it
	}
	if err := plainPlaces(compose, "containers", "a container", "name", "image", "command", "entrypoint", "user"); err != nil {
		return err
	}
	return plainPlaces(compose, "image_pull_credentials", "a set of credentials")
}

// plainPlaces does it for a list in compose; each of it may have the fields known, variables and files.
func plainPlaces(compose map[string]any, list, what string, known ...string) error {
	all, _ := compose[list].([]any)
	for i, one := range all {
		fields, ok := one.(map[string]any)
		if !ok {
			continue // Parse says what is wrong
		}
		err := checkFields(what, fields, append(known, "env_vars", "env", "files"))
		if err == nil {
			err = plainPlace(fields)
		}
		if err != nil {
			return fmt.Errorf("compose.%s[%d]: %w", list, i, err)
		}
	}
	return nil
}

// plainPlace does it for the variables and files of a job, a container or credentials.
func plainPlace(fields map[string]any) error {
	if err := plainEnv(fields); err != nil {
		return err
	}
	files, _ := fields["files"].([]any)
	for i, f := range files {
		if err := plainText(f); err != nil {
			return fmt.Errorf("files[%d]: %w", i, err)
		}
	}
	return nil
}

func plainCommands(fields map[string]any, name string) {
	list, _ := fields[name].([]any)
	for i, c := range list {
		if text, ok := c.(string); ok {
			list[i] = map[string]any{"directive": text}
		}
	}
}

// checkFields refuses a field that a person has misspelt; the hub's own requests may have any.
func checkFields(what string, fields map[string]any, known []string) error {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains(known, name) {
			slices.Sort(known)
			return fmt.Errorf("%s has no field %.200q; it may have: %s", what, name, strings.Join(known, ", "))
		}
	}
	return nil
}

// plainEnv moves the table env to the end of env_vars.
func plainEnv(fields map[string]any) error {
	env, ok := fields["env"]
	if !ok {
		return nil
	}
	table, ok := env.(map[string]any)
	if !ok && env != nil {
		return fmt.Errorf("env: it must be a table of NAME: value")
	}
	vars, ok := fields["env_vars"].([]any)
	if !ok && fields["env_vars"] != nil {
		return fmt.Errorf("env_vars: it must be a list")
	}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		var text string
		switch value := table[name].(type) {
		case nil:
		case string, bool, json.Number:
			text = fmt.Sprint(value)
		default:
			return fmt.Errorf("env: the value of %s must be a text, a number, true or false", shown(name))
		}
		vars = append(vars, map[string]any{"name": name, "value": encode(text)})
	}
	fields["env_vars"] = vars
	delete(fields, "env")
	return nil
}

// plainText turns a file's text into content.
func plainText(file any) error {
	f, ok := file.(map[string]any)
	if !ok {
		return nil // Parse says what is wrong
	}
	value, ok := f["text"]
	if !ok {
		return nil
	}
	text, ok := value.(string)
	if !ok {
		return fmt.Errorf("text: it must be a text, in quotes if it looks like something else")
	}
	if _, ok := f["content"]; ok {
		return fmt.Errorf("it has both text and content")
	}
	f["content"] = encode(text)
	delete(f, "text")
	return nil
}

func encode(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
