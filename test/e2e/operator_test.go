//go:build unix

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// A day of an operator as a script: testdata/operator/day.txtar.
func TestOperatorsDay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	build := func(in, out string, args ...string) string {
		t.Helper()
		out = filepath.Join(dir, out)
		cmd := exec.Command("go", append([]string{"build", "-o", out}, args...)...)
		cmd.Dir = in
		said, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", said)
		return out
	}
	example := build("../../plugins/example", "worker-example", ".")
	next := build("../..", "next", "-ldflags", "-X github.com/signalman-ci/signalman/internal/version.Version=2.0.0", "./cmd/supervisor")
	params := commandLine("operator", func(env *testscript.Env) error {
		port, err := freePort()
		if err != nil {
			return err
		}
		env.Setenv("EXAMPLE", example)
		env.Setenv("NEXT", next)
		env.Setenv("PORT", port)
		file := filepath.Join(env.WorkDir, "more.toml")
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return os.WriteFile(file, []byte(strings.ReplaceAll(string(text), "PORT", port)), 0o600)
	})
	for name, command := range map[string]func(*testscript.TestScript, bool, []string){
		"eventually": eventuallySays, "replace": replaceIn, "append": appendTo, "concat": concat, "http": askHTTP, "job": submitTo, "queued": stillQueued,
	} {
		params.Cmds[name] = command
	}
	testscript.Run(t, params)
}

// freePort is a port that is likely to be free still when it is asked for.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// eventuallySays (eventually REGEXP COMMAND...) runs a command until it succeeds and prints what matches; that is stdout then.
func eventuallySays(ts *testscript.TestScript, _ bool, args []string) {
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for deadline := time.Now().Add(patience); ; {
		err := ts.Exec(args[1], args[2:]...)
		said := ts.ReadFile("stdout")
		if err == nil && want.MatchString(said) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%v doesn't say %s, but (%v):\n%s", args[1:], args[0], err, said)
		}
	}
}

// replaceIn (replace FILE OLD NEW) edits a file as an editor does, by a rename.
func replaceIn(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(path+".swp", []byte(strings.Replace(text, args[1], args[2], 1)), 0o600))
	ts.Check(os.Rename(path+".swp", path))
}

// appendTo (append FILE TEXT) adds text to a file.
func appendTo(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteString(args[1])
	ts.Check(err)
	ts.Check(f.Close())
}

// concat (concat FILE OTHER) adds another file to a file.
func concat(ts *testscript.TestScript, _ bool, args []string) {
	appendTo(ts, false, []string{args[0], ts.ReadFile(args[1])})
}

// askHTTP (http METHOD PATH [token] [from=ORIGIN]) asks the admin port; stdout is the status and then the body.
func askHTTP(ts *testscript.TestScript, _ bool, args []string) {
	req, err := http.NewRequestWithContext(context.Background(), args[0], "http://127.0.0.1:"+ts.Getenv("PORT")+args[1], nil)
	ts.Check(err)
	req.Header.Set("X-Signalman", "1")
	for _, arg := range args[2:] {
		if origin, ok := strings.CutPrefix(arg, "from="); ok {
			req.Header.Set("Origin", origin)
			continue
		}
		ts.Check(ts.Exec("supervisor", "admin-token"))
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(ts.ReadFile("stdout")))
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	_, err = fmt.Fprintf(ts.Stdout(), "%d\n%s\n", resp.StatusCode, body)
	ts.Check(err)
}

// submitTo (job EXECUTOR ID) queues a job that chooses its executor.
func submitTo(ts *testscript.TestScript, _ bool, args []string) {
	_, err := ts.Value("hub").(*hubtest.Hub).Submit(hubtest.Request{
		ID: args[1], Commands: []string{"echo in " + args[0]}, Env: []hubtest.EnvVar{{Name: "SIGNALMAN_EXECUTOR", Value: args[0]}},
	})
	ts.Check(err)
}

// stillQueued (queued ID) checks that nobody has taken a job.
func stillQueued(ts *testscript.TestScript, _ bool, args []string) {
	if job, ok := ts.Value("hub").(*hubtest.Hub).Job(args[0]); !ok || job.State != hubtest.JobQueued {
		ts.Fatalf("job %s is %s", args[0], job.State)
	}
}
