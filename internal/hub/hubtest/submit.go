package hubtest

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// Request is a job in short. For anything it can't say there is [Hub.SubmitJSON].
type Request struct {
	ID             string // made up if empty
	Name           string
	Executor       string
	Commands       []string
	EpilogueAlways []string
	EpilogueOnPass []string
	EpilogueOnFail []string
	Env            []EnvVar
	Files          []File
	// Containers make it a job in containers; the first one is main.
	Containers []Container
}

// Container is one of a job's containers.
type Container struct {
	Name, Image               string
	Command, Entrypoint, User string
	Env                       []EnvVar
	Files                     []File
}

// EnvVar is an environment variable, its value as it is (not base64).
type EnvVar struct{ Name, Value string }

// File is a file to be injected, its content as it is (not base64).
type File struct{ Path, Content, Mode string }

// Submit queues a job and returns its id.
func (h *Hub) Submit(r Request) (string, error) {
	type object = map[string]any
	commands := func(list []string) []object {
		out := []object{}
		for _, c := range list {
			out = append(out, object{"directive": c})
		}
		return out
	}
	env := func(list []EnvVar) []object {
		out := []object{}
		for _, e := range list {
			out = append(out, object{"name": e.Name, "value": base64.StdEncoding.EncodeToString([]byte(e.Value))})
		}
		return out
	}
	files := func(list []File) []object {
		out := []object{}
		for _, f := range list {
			out = append(out, object{"path": f.Path, "content": base64.StdEncoding.EncodeToString([]byte(f.Content)), "mode": f.Mode})
		}
		return out
	}
	payload := object{
		"job_name":                  r.Name,
		"executor":                  r.Executor,
		"commands":                  commands(r.Commands),
		"epilogue_always_commands":  commands(r.EpilogueAlways),
		"epilogue_on_pass_commands": commands(r.EpilogueOnPass),
		"epilogue_on_fail_commands": commands(r.EpilogueOnFail),
		"env_vars":                  env(r.Env),
		"files":                     files(r.Files),
	}
	if len(r.Containers) > 0 {
		containers := []object{}
		for _, c := range r.Containers {
			containers = append(containers, object{
				"name": c.Name, "image": c.Image, "command": c.Command, "entrypoint": c.Entrypoint, "user": c.User,
				"env_vars": env(c.Env), "files": files(c.Files),
			})
		}
		payload["executor"] = cmp.Or(r.Executor, "dockercompose")
		payload["compose"] = object{"containers": containers}
	}
	if r.ID != "" {
		payload["job_id"] = r.ID
	}
	raw, err := json.Marshal(payload)
	if err != nil {
		return "", fmt.Errorf("cannot submit the job: %w", err)
	}
	return h.SubmitJSON(raw)
}

// SubmitJSON queues a job request given as a JSON object and returns the job's
// id. What is missing is filled in: job_id, and in logger the method, url and
// token. What is there is left alone, be it of the wrong type. An id that is no
// text isn't used: the job then goes by one made up.
func (h *Hub) SubmitJSON(raw []byte) (string, error) {
	var payload map[string]json.RawMessage
	if err := json.Unmarshal(raw, &payload); err != nil {
		return "", fmt.Errorf("cannot submit the job: %w", err)
	}
	if payload == nil {
		return "", errors.New("cannot submit the job: null is no object")
	}
	var id string
	if json.Unmarshal(payload["job_id"], &id) != nil || id == "" {
		id = uuid.NewString()
		fill(payload, "job_id", id)
	}
	token := uuid.NewString()
	logger := map[string]json.RawMessage{}
	given, found := payload["logger"]
	if !found || (json.Unmarshal(given, &logger) == nil && logger != nil) {
		fill(logger, "method", "push")
		fill(logger, "url", h.LogURL(id))
		fill(logger, "token", token)
		filled, err := json.Marshal(logger)
		if err != nil {
			return "", fmt.Errorf("cannot submit the job: %w", err)
		}
		payload["logger"] = filled
	}
	full, err := json.Marshal(payload)
	if err != nil {
		return "", fmt.Errorf("cannot submit the job: %w", err)
	}
	return id, h.enqueue(id, full, token)
}

// SubmitRaw queues a job whose payload is sent byte for byte, be it JSON or not.
func (h *Hub) SubmitRaw(id string, payload []byte) error {
	return h.enqueue(id, payload, uuid.NewString())
}

// fill sets a text unless there is something already.
func fill(object map[string]json.RawMessage, key, text string) {
	if _, found := object[key]; !found {
		object[key], _ = json.Marshal(text) // a string always marshals
	}
}

func (h *Hub) enqueue(id string, payload []byte, token string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, found := h.jobs[id]; found {
		return fmt.Errorf("cannot submit the job: there is a job %q already", id)
	}
	j := &job{
		Job:     Job{ID: id, State: JobQueued, SubmittedAt: h.now()},
		seq:     h.nextSeq(),
		payload: payload,
		tokens:  map[string]bool{token: true},
	}
	h.jobs[id] = j
	h.queue = append(h.queue, j)
	h.changedLocked()
	return nil
}
