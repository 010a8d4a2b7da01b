//go:build unix

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// What the command line does, script by script: see testdata/script. Each script has a hub of its own at $ENDPOINT.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	testscript.Run(t, commandLine("script", func(*testscript.Env) error { return nil }))
}

// commandLine is for the scripts of a folder; setup comes last.
func commandLine(dir string, setup func(*testscript.Env) error) testscript.Params {
	return testscript.Params{
		Dir:                 filepath.Join("testdata", dir),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			hub, err := hubtest.New(hubtest.Options{RegistrationToken: "a-registration-token"})
			if err != nil {
				return err
			}
			env.Defer(hub.Close)
			env.Values["hub"] = hub
			examples, err := filepath.Abs("../../examples")
			if err != nil {
				return err
			}
			if err := os.Mkdir(filepath.Join(env.WorkDir, "home"), 0o755); err != nil {
				return err
			}
			env.Setenv("PATH", binaries+string(filepath.ListSeparator)+os.Getenv("PATH"))
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("ENDPOINT", hub.Endpoint())
			env.Setenv("EXAMPLES", examples)
			env.Setenv("BINARIES", binaries)
			env.Setenv("SEMAPHORE_AGENT_STATE_DIR", filepath.Join(env.WorkDir, "state"))
			return setup(env)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"agents": waitForAgents, "oneline": oneLine, "submit": submitCommand, "finished": waitFinished,
		},
	}
}

// waitForAgents (agents N) waits until so many agents have synced, and have heard the answer: they have synced again.
func waitForAgents(ts *testscript.TestScript, _ bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	hub := ts.Value("hub").(*hubtest.Hub)
	ts.Check(hub.WaitAgents(ctx, func(agents []hubtest.Agent) bool {
		synced := 0
		for _, a := range agents {
			if len(hub.Syncs(a.Name)) > 1 {
				synced++
			}
		}
		return fmt.Sprint(synced) == args[0]
	}))
}

// oneLine (oneline stderr) checks that there is one line, so no usage page and no second report.
func oneLine(ts *testscript.TestScript, _ bool, args []string) {
	if text := ts.ReadFile(args[0]); strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") {
		ts.Fatalf("%s is not one line:\n%s", args[0], text)
	}
}

// submitCommand (submit ID COMMAND) queues a job of one command.
func submitCommand(ts *testscript.TestScript, _ bool, args []string) {
	_, err := ts.Value("hub").(*hubtest.Hub).Submit(hubtest.Request{ID: args[0], Commands: args[1:]})
	ts.Check(err)
}

// waitFinished (finished ID RESULT) waits for a job's end.
func waitFinished(ts *testscript.TestScript, _ bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	job, err := ts.Value("hub").(*hubtest.Hub).WaitFinished(ctx, args[0])
	ts.Check(err)
	if string(job.Result) != args[1] {
		ts.Fatalf("job %s has %s", args[0], job.Result)
	}
}
