package request

import (
	"encoding/base64"
	"encoding/json"
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

// FromYAML turns a job that a person wrote into a request as the hub sends it, and gives its id. The fields are those of the
// request; for a person's sake a command may be plain text, env is a table of plain variables, and a file may have text
// instead of base64 content. A job without an id gets one.
func FromYAML(raw []byte) (jobID string, req []byte, err error) {
	var fields map[string]any
	if err := yaml.Unmarshal(raw, &fields); err != nil {
		return "", nil, fmt.Errorf("not a job in YAML: %w", err)
	}
	if fields == nil {
		return "", nil, fmt.Errorf("not a job in YAML: it is empty")
	}
	if err := checkFields(fields); err != nil {
		return "", nil, err
	}
	for _, name := range commandLists {
		if list, ok := fields[name].([]any); ok {
			for i, c := range list {
				if text, ok := c.(string); ok {
					list[i] = map[string]any{"directive": text}
				}
			}
		}
	}
	if err := plainEnv(fields); err != nil {
		return "", nil, err
	}
	if files, ok := fields["files"].([]any); ok {
		for _, f := range files {
			plainText(f)
		}
	}
	jobID, ok := fields["job_id"].(string)
	if !ok || jobID == "" {
		jobID = uuid.NewString()
		fields["job_id"] = jobID
	}
	req, err = json.Marshal(fields)
	if err != nil {
		return "", nil, fmt.Errorf("not a job in YAML: %w", err)
	}
	return jobID, req, nil
}

// checkFields refuses a field that a person has misspelt; the hub's own requests may have any.
func checkFields(fields map[string]any) error {
	known := append(slices.Clone(commandLists), "job_id", "job_name", "executor", "env_vars", "env", "files",
		"ssh_public_keys", "compose", "callbacks", "logger")
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains(known, name) {
			slices.Sort(known)
			return fmt.Errorf("a job has no field %q; it may have: %s", name, strings.Join(known, ", "))
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
	if !ok {
		return fmt.Errorf("env: it must be a table of NAME: value")
	}
	vars, _ := fields["env_vars"].([]any)
	for _, name := range slices.Sorted(maps.Keys(table)) {
		vars = append(vars, map[string]any{"name": name, "value": encode(fmt.Sprint(table[name]))})
	}
	fields["env_vars"] = vars
	delete(fields, "env")
	return nil
}

func plainText(file any) {
	f, ok := file.(map[string]any)
	if !ok {
		return // Parse says what is wrong
	}
	if text, ok := f["text"].(string); ok {
		f["content"] = encode(text)
		delete(f, "text")
	}
}

func encode(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
