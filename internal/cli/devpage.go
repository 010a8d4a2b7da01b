package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/signalman-ci/signalman/internal/admin"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/loopback"
	"github.com/signalman-ci/signalman/internal/request"
	"github.com/signalman-ci/signalman/internal/supervisor"
)

// pageLimit is how long the page's port may take to be open.
const pageLimit = 30 * time.Second

// example is a job that the page offers.
type example struct {
	Name string `json:"name"`
	YAML string `json:"yaml"`
}

// devPage shows the page, which hands jobs over, until a signal.
func devPage(c *cli.Context) error {
	if err := loopback.Check(c.String("listen")); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	examples := []example{}
	for _, path := range c.Args().Slice() {
		if _, _, err := readJobFile(path); err != nil {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("cannot read the job: %w", err)
		}
		examples = append(examples, example{Name: filepath.Base(path), YAML: string(raw)})
	}
	return dev(c, func(hub *hubtest.Hub, settings *supervisor.Settings) (devWork, error) {
		settings.AdminListen = c.String("listen")
		settings.Mounts = devMounts(hub, examples)
		return func(ctx context.Context, sup *supervisor.Supervisor, gone <-chan struct{}) error {
			opening, cancel := context.WithTimeout(ctx, pageLimit)
			defer cancel()
			url, err := sup.PageURL(opening)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.App.Writer, "The page, signed in:\n\n  %s\n\nhub on %s, %d slots; Ctrl-C ends it all\n", url, hub.Endpoint(), settings.Slots)
			<-gone // on a signal
			return nil
		}, nil
	})
}

// devMounts let the page hand jobs to the hub.
func devMounts(hub *hubtest.Hub, examples []example) []admin.Mount {
	return []admin.Mount{
		{Pattern: "GET /v1/dev/examples", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			reply(w, http.StatusOK, examples)
		})},
		{Pattern: "POST /v1/dev/jobs", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var job struct {
				YAML string `json:"yaml"`
			}
			if err := json.NewDecoder(r.Body).Decode(&job); err != nil {
				reply(w, http.StatusBadRequest, map[string]string{"error": fmt.Sprintf("cannot read the request: %v", err)})
				return
			}
			id, err := submitYAML(hub, []byte(job.YAML))
			if err != nil {
				reply(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
				return
			}
			reply(w, http.StatusCreated, map[string]string{"id": id})
		})},
	}
}

// submitYAML hands a job over if it is one: who has just written it should hear at once what is wrong.
func submitYAML(hub *hubtest.Hub, text []byte) (string, error) {
	id, wire, err := request.FromYAML(text)
	if err != nil {
		return "", err
	}
	if _, _, err := request.Parse(wire, id); err != nil {
		return "", err
	}
	return hub.SubmitJSON(wire)
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the caller has gone
}
