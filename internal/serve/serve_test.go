//go:build unix

package serve

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/artifact"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/shared/eventlog"
)

func TestIsAlive(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	assert.Equal(t, answered{200, "text/plain", "yes"}, w.ask("GET", "/is_alive", "", "Authorization", ""))
	assert.Equal(t, http.StatusUnauthorized, w.ask("POST", "/is_alive", "", "Authorization", "").status)
}

// Only a token of the hub's opens the rest, whatever is asked for.
func TestAuthorization(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	good := token(t, jwt.SigningMethodHS256, []byte(secret), jwt.MapClaims{})
	parts := strings.Split(good, ".")
	soon, past := time.Now().Add(time.Hour).Unix(), time.Now().Add(-time.Minute).Unix()
	for name, test := range map[string]struct {
		header string
		want   int
	}{
		"without expiry":    {"Bearer " + good, 200},
		"not yet expired":   {"Bearer " + token(t, jwt.SigningMethodHS256, []byte(secret), jwt.MapClaims{"exp": soon}), 200},
		"none":              {"", 401},
		"expired":           {"Bearer " + token(t, jwt.SigningMethodHS256, []byte(secret), jwt.MapClaims{"exp": past}), 401},
		"not yet valid":     {"Bearer " + token(t, jwt.SigningMethodHS256, []byte(secret), jwt.MapClaims{"nbf": soon}), 401},
		"another secret":    {"Bearer " + token(t, jwt.SigningMethodHS256, []byte("another"), jwt.MapClaims{}), 401},
		"HS512":             {"Bearer " + token(t, jwt.SigningMethodHS512, []byte(secret), jwt.MapClaims{}), 401},
		"alg none":          {"Bearer " + token(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, jwt.MapClaims{}), 401},
		"ES256":             {"Bearer " + token(t, jwt.SigningMethodES256, key, jwt.MapClaims{}), 401},
		"no signature":      {"Bearer " + parts[0] + "." + parts[1] + ".", 401},
		"Token":             {"Token " + good, 401},
		"no scheme":         {good, 401},
		"the secret itself": {"Bearer " + secret, 401},
		"empty":             {"Bearer ", 401},
	} {
		assert.Equal(t, test.want, w.ask("GET", "/status", "", "Authorization", test.header).status, name)
	}
	for _, route := range []string{"GET /status", "POST /jobs", "GET /jobs/x/log", "POST /stop", "POST /jobs/terminate", "GET /agent_logs", "GET /else"} {
		method, path, _ := strings.Cut(route, " ")
		got := w.ask(method, path, "{}", "Authorization", "")
		assert.Equal(t, http.StatusUnauthorized, got.status, route)
		assert.JSONEq(t, `{"message":"not authorized"}`, got.body)
	}
	assert.Equal(t, http.StatusNotFound, w.ask("GET", "/else", "").status)
	assert.Equal(t, http.StatusMethodNotAllowed, w.ask("GET", "/jobs", "").status)
}

// A job from the call to the last callback, as the wire facts have it.
func TestJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	assert.Equal(t, http.StatusNotFound, w.ask("GET", "/jobs/job-1/log", "").status, "there has been no job yet")
	assert.Equal(t, waitingForJob, w.state())
	w.post("job-1", object{"env_vars": []object{{"name": "WHO", "value": b64("world")}}}, "echo hello $WHO", w.untilFile("gate"), "exit 3")
	assert.Equal(t, jobReceived, w.state())
	w.runs("job-1", "hello world")
	w.post("job-1", nil, "echo hello") // the same again
	other := w.ask("POST", "/jobs", w.request("job-2", nil, "true"))
	assert.Equal(t, http.StatusUnprocessableEntity, other.status)
	assert.JSONEq(t, `{"message":"a job is already running"}`, other.body)
	assert.Equal(t, http.StatusForbidden, w.ask("GET", "/jobs/job-2/log", "").status)
	w.touch("gate")

	assert.Equal(t, `POST /finished Bearer callback-token {"result":"failed"}`, w.hears(1)[0])
	w.eventually("the log ends", func() bool { return strings.Contains(w.jobLog("job-1"), "job_finished") })
	assert.Len(t, w.heard(), 1, "the teardown waits for the archivator")
	assert.Equal(t, jobReceived, w.state())
	log := w.archive("job-1")
	assert.Equal(t, w.jobLog("job-1"), log)
	assert.Equal(t, []string{`POST /finished Bearer callback-token {"result":"failed"}`, `POST /teardown Bearer callback-token {}`}, w.hears(2))
	w.over()

	raw, err := os.ReadFile(filepath.Join(w.settings.JobsDir, "job-1", "events.jsonl"))
	require.NoError(t, err)
	assert.Equal(t, string(raw), log)
	var events [][]byte
	for line := range strings.Lines(log) {
		events = append(events, []byte(line))
	}
	require.NoError(t, hubtest.CheckLog(events))
	assert.Equal(t, 1, strings.Count(log, `"output":"hello world`), "no second run")
	w.post("job-1", nil, "echo hello") // after its end as well
	assert.Equal(t, waitingForJob, w.state())
	assert.Equal(t, log, w.jobLog("job-1"), "it stays until the next one")
	w.post("job-2", nil, "true")
	w.eventually("it ends", func() bool { return strings.Contains(w.archive("job-2"), "job_finished") })
	assert.Equal(t, http.StatusForbidden, w.ask("GET", "/jobs/job-1/log", "").status)
	assert.Contains(t, w.hears(4)[2], `{"result":"passed"}`)
	for _, name := range []string{"request.json", "callbacks.json", "tmp"} {
		w.over()
		assert.NoFileExists(t, filepath.Join(w.settings.JobsDir, "job-2", name))
	}
	assert.NotContains(t, w.log.String(), "callback-token")
}

func TestRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *Settings) { s.MaxRequest = 10_000 })
	for name, test := range map[string]struct {
		body string
		want int
	}{
		"nothing":            {"", 422},
		"no JSON":            {"{", 422},
		"null":               {"null", 422},
		"a list":             {"[]", 422},
		"no id":              {`{"commands":[]}`, 422},
		"an id that climbs":  {`{"job_id":"../x","commands":[]}`, 422},
		"wrong types":        {`{"job_id":"a","commands":5}`, 422},
		"no base64":          {`{"job_id":"a","env_vars":[{"name":"A","value":"%"}]}`, 422},
		"callbacks are text": {`{"job_id":"a","callbacks":"x"}`, 422},
		"too large":          {`{"job_id":"a","x":"` + strings.Repeat("x", 10_000) + `"}`, 413},
	} {
		got := w.ask("POST", "/jobs", test.body)
		assert.Equal(t, test.want, got.status, name)
		assert.Contains(t, got.body, `"message"`, name)
	}
	assert.Equal(t, waitingForJob, w.state())
	entries, err := os.ReadDir(w.settings.JobsDir)
	require.NoError(t, err)
	assert.Empty(t, entries)
}

func TestNoRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *Settings) { s.Admit = func(context.Context) error { return errors.New("the disk is full") } })
	got := w.ask("POST", "/jobs", w.request("job-1", nil, "true"))
	assert.Equal(t, http.StatusServiceUnavailable, got.status)
	assert.JSONEq(t, `{"message":"the disk is full"}`, got.body)
	assert.Equal(t, waitingForJob, w.state())
}

func TestStop(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/stop", "/jobs/terminate"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			assert.Equal(t, http.StatusOK, w.ask("POST", path, "").status, "without a job it does nothing")
			w.post("job-1", nil, "echo begun; sleep 1000")
			w.runs("job-1", "begun")
			assert.Equal(t, http.StatusOK, w.ask("POST", path, "").status)
			assert.Equal(t, http.StatusOK, w.ask("POST", path, "").status, "again")
			assert.Contains(t, w.hears(1)[0], `{"result":"stopped"}`)
			w.archive("job-1")
			w.over()
			assert.Equal(t, http.StatusOK, w.ask("POST", path, "").status)
		})
	}
}

func TestLogByIndex(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.post("job-1", nil, "for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.02; done")
	w.hears(1)
	w.eventually("the log ends", func() bool { return strings.Contains(w.jobLog("job-1"), "job_finished") })
	all := w.ask("GET", "/jobs/job-1/log", "")
	assert.Equal(t, "text/plain", all.kind)
	each := strings.SplitAfter(strings.TrimSuffix(all.body, "\n"), "\n")
	for from := range each {
		got := w.ask("GET", "/jobs/job-1/log?start_from="+strconv.Itoa(from), "")
		assert.Equal(t, strings.Join(each[from:], "")+"\n", got.body)
	}
	for _, from := range []int{len(each), len(each) + 1, 1 << 40} {
		assert.Equal(t, answered{200, "text/plain", ""}, w.ask("GET", fmt.Sprintf("/jobs/job-1/log?start_from=%d", from), ""))
	}
	for _, bad := range []string{"-1", "x", "1.5", "99999999999999999999"} {
		assert.Equal(t, http.StatusBadRequest, w.ask("GET", "/jobs/job-1/log?start_from="+bad, "").status, bad)
	}
	w.archive("job-1")
	w.over()
}

// The last event comes after the callback was heard, or given up.
func TestJobFinishedComesAfterTheCallback(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *Settings) { s.CallbackEvery = 20 * time.Millisecond })
	w.fail(5)
	w.post("job-1", nil, "true")
	w.hears(3)
	assert.NotContains(t, w.jobLog("job-1"), "job_finished")
	assert.Contains(t, w.archive("job-1"), "job_finished", "who reads for good waits for it")
	calls := w.hears(7)
	assert.Equal(t, strings.Repeat("F", 6)+"T", strings.Map(func(r rune) rune { return map[rune]rune{'f': 'F', 't': 'T'}[r] }, firstLetters(calls)))
	w.over()
}

func firstLetters(calls []string) string {
	var out strings.Builder
	for _, c := range calls {
		out.WriteByte(strings.TrimPrefix(c, "POST /")[0])
	}
	return out.String()
}

func TestCallbackThatNobodyHears(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *Settings) { s.CallbackAttempts, s.ArchiveLimit = 3, 10*time.Millisecond })
	w.fail(1000)
	w.post("job-1", object{"callbacks": object{"finished": w.hub.URL + "/finished?token=in-the-address", "teardown_finished": w.hub.URL + "/teardown"}}, "true")
	w.over()
	assert.Equal(t, "ffftt"+"t", firstLetters(w.heard()))
	assert.Equal(t, `POST /finished  {"result":"passed"}`, w.heard()[0], "without a token there is no header")
	assert.Contains(t, w.jobLog("job-1"), "job_finished")
	assert.Equal(t, 2, strings.Count(w.log.String(), "it is given up"))
	assert.NotContains(t, w.log.String(), "in-the-address")
}

func TestJobWithoutCallbacks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.post("job-1", object{"callbacks": nil}, "true")
	w.over()
	assert.Empty(t, w.heard())
}

// A hub that answers with another address hears no token there.
func TestCallbackFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *Settings) { s.CallbackAttempts, s.ArchiveLimit = 1, time.Millisecond })
	away := http.Server{Handler: http.RedirectHandler(w.hub.URL+"/elsewhere", http.StatusTemporaryRedirect), ReadHeaderTimeout: patience}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() { defer close(done); _ = away.Serve(l) }()
	defer func() { _ = away.Close(); <-done }()
	w.post("job-1", object{"callbacks": object{"finished": "http://" + l.Addr().String(), "token": "callback-token"}}, "true")
	w.over()
	assert.Empty(t, w.heard())
	w.settings.HTTP.CloseIdleConnections()
}

func TestAgentLogs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	assert.Equal(t, http.StatusNotFound, w.ask("GET", "/agent_logs", "").status)
	require.NoError(t, os.WriteFile(w.settings.AgentLog, []byte("one\ntwo\n"), 0o600))
	assert.Equal(t, answered{200, "text/plain; charset=utf-8", "one\ntwo\n"}, w.ask("GET", "/agent_logs", ""))
}

// A server that was killed goes on with its job when it is started again, with the token that it calls back with.
func TestStartedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.fail(1 << 30)
	w.post("job-1", nil, "echo hello")
	w.hears(2)
	w.halt()
	folder, err := jobdir.Open(filepath.Join(w.settings.JobsDir, "job-1"))
	require.NoError(t, err)
	w.start(folder)
	assert.Equal(t, jobReceived, w.state())
	w.post("job-1", nil, "echo hello")
	w.fail(0)
	w.eventually("the log ends", func() bool { return strings.Contains(w.jobLog("job-1"), "job_finished") })
	told := len(w.heard())
	w.halt()
	folder, err = jobdir.Open(filepath.Join(w.settings.JobsDir, "job-1"))
	require.NoError(t, err)
	w.start(folder)
	assert.Contains(t, w.archive("job-1"), "job_finished")
	w.over()
	calls := w.heard()
	assert.Len(t, calls, told+1, "the result isn't told again")
	assert.Equal(t, `POST /teardown Bearer callback-token {}`, calls[told])
	w.halt()
	w.start(nil)
	assert.Equal(t, waitingForJob, w.state())
	assert.Contains(t, w.jobLog("job-1"), "job_finished")
	w.post("job-1", nil, "echo hello")
	assert.Equal(t, waitingForJob, w.state(), "no second run")
}

// A job that was being taken when the server died was never promised to anybody.
func TestHalfTakenJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.halt()
	folder, err := jobdir.Create(w.settings.JobsDir, "job-1", 1)
	require.NoError(t, err)
	w.start(folder)
	assert.Equal(t, waitingForJob, w.state())
	w.post("job-1", object{"callbacks": nil}, "true")
	w.over()
	assert.Contains(t, w.jobLog("job-1"), "job_finished")
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *Settings) { s.ArchiveLimit = 50 * time.Millisecond })
	w.post("job-1", nil, "echo begun; sleep 1000")
	w.runs("job-1", "begun")
	assert.Equal(t, "running-job", w.server.Status().State)
	require.ErrorIs(t, w.server.StopJob(t.Context(), "job-2"), agent.ErrNotHeld)
	w.server.Interrupt()
	w.server.Interrupt()
	require.NoError(t, <-w.done)
	w.done <- nil
	assert.Contains(t, w.heard()[0], `{"result":"stopped"}`)
	raw, err := os.ReadFile(filepath.Join(w.settings.JobsDir, "job-1", "events.jsonl"))
	require.NoError(t, err)
	assert.Contains(t, string(raw), "The agent was interrupted.")
}

func TestInterruptWithoutAJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.server.Interrupt()
	require.NoError(t, <-w.done)
	w.done <- nil
}

// A job says by itself when its log is pushed to its artifacts.
func TestUploadVariable(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "artifact"), []byte("#!/bin/sh\ncp \"$3\" \"$HOME/$SEMAPHORE_JOB_ID\"\n"), 0o755))
	for _, test := range []struct {
		set, value string
		pushed     bool
	}{{"never", "always", true}, {"always", "never", false}, {"always", "", true}, {"never", "when-trimmed", true}, {"never", "sometimes", false}} {
		t.Run(test.set+" "+test.value, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(s *Settings) {
				s.LogPusher = artifact.Pusher{When: artifact.When(test.set), CompressAbove: 1 << 20, Environ: []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + bin}}
			})
			env := []object{{"name": "SEMAPHORE_ARTIFACT_TOKEN", "value": b64("a-token")}, {"name": "SEMAPHORE_JOB_ID", "value": b64(strings.ReplaceAll(t.Name(), "/", "-"))}}
			if test.value != "" {
				env = append(env, object{"name": uploadVariable, "value": b64(test.value)})
			}
			w.post("job-1", object{"callbacks": nil, "env_vars": env, "logger": object{"method": "pull", "max_size_in_bytes": 10}}, "echo hello")
			w.over()
			text, err := os.ReadFile(filepath.Join(bin, strings.ReplaceAll(t.Name(), "/", "-")))
			assert.Equal(t, test.pushed, err == nil)
			if test.pushed {
				assert.Contains(t, string(text), "echo hello\nhello\n")
			}
		})
	}
}

func TestSSH(t *testing.T) {
	t.Parallel()
	var jump, keys string
	w := newWorld(t, func(s *Settings) {
		jump = filepath.Join(filepath.Dir(s.JobsDir), "jump")
		keys = filepath.Join(s.Job.Home, ".ssh", "authorized_keys")
		s.SSH = SSH{Home: s.Job.Home, JumpPoint: jump}
	})
	home := w.settings.Job.Home
	require.NoError(t, os.Mkdir(filepath.Dir(keys), 0o700))
	require.NoError(t, os.WriteFile(keys, []byte("ssh-rsa OWN me@here"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(home, ".bash_profile"), []byte("export PROFILE=read WHO=profile\n"), 0o644))
	value := "it's \"quoted\" $HOME\nand long"
	w.post("job-1", object{
		"ssh_public_keys": []string{b64("ssh-ed25519 AAAA dev@laptop\n"), b64("ssh-rsa BBBB")},
		"env_vars":        []object{{"name": "WHO", "value": b64(value)}},
	}, "echo begun", w.untilFile("gate"))
	w.runs("job-1", "begun")
	raw, err := os.ReadFile(keys)
	require.NoError(t, err)
	assert.Equal(t, "ssh-rsa OWN me@here\nssh-ed25519 AAAA dev@laptop signalman-job\nssh-rsa BBBB signalman-job\n", string(raw))
	info, err := os.Stat(keys)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	script, err := os.ReadFile(jump)
	require.NoError(t, err)
	assert.NotContains(t, string(script), value)

	through := func(stdin string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), jump, args...)
		cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
		cmd.Stdin = strings.NewReader(stdin)
		var out strings.Builder
		cmd.Stdout = &out
		require.NoError(t, cmd.Run())
		return out.String()
	}
	assert.Equal(t, value+"|read|a  b|"+home+"\n", through("", "sh", "-c", `echo "$WHO|$PROFILE|$1|$PWD"`, "sh", "a  b"))
	assert.Equal(t, value+"|read\n", through("echo \"$WHO|$PROFILE\"\nexit\n"))
	code := exec.CommandContext(t.Context(), jump, "sh", "-c", "exit 7").Run()
	assert.ErrorContains(t, code, "exit status 7")

	w.touch("gate")
	w.hears(1)
	w.archive("job-1")
	w.over()
	raw, err = os.ReadFile(keys)
	require.NoError(t, err)
	assert.Equal(t, "ssh-rsa OWN me@here\n", string(raw))
	assert.NoFileExists(t, jump)
	raw, err = os.ReadFile(filepath.Join(home, ".bash_profile"))
	require.NoError(t, err)
	assert.Equal(t, "export PROFILE=read WHO=profile\n", string(raw))
}

// Keys that were left behind, by a job whose folder has gone, are taken out at the next start; what is another's stays.
func TestSSHIsClearedAtTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := SSH{Home: dir, JumpPoint: filepath.Join(dir, "jump")}
	require.NoError(t, addKeys(s.keys(), []string{"ssh-rsa LEFT"}))
	require.NoError(t, writeScript(s.JumpPoint, jumpHead+"x runs.\n"))
	w := newWorld(t, func(set *Settings) { set.SSH = s })
	assert.Equal(t, waitingForJob, w.state())
	assert.NoFileExists(t, s.keys())
	assert.NoFileExists(t, s.JumpPoint)
	require.NoError(t, os.WriteFile(s.keys(), []byte("own"), 0o644))
	require.NoError(t, os.WriteFile(s.JumpPoint, []byte("#!/bin/sh\n# another agent's\n"), 0o644))
	require.NoError(t, s.clear())
	raw, err := os.ReadFile(s.keys())
	require.NoError(t, err)
	assert.Equal(t, "own", string(raw))
	assert.FileExists(t, s.JumpPoint)
}

// The place of the script is open to all users: nothing that is there is followed.
func TestJumpPointFollowsNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target, path := filepath.Join(dir, "target"), filepath.Join(dir, "jump")
	require.NoError(t, os.WriteFile(target, []byte("mine"), 0o600))
	require.NoError(t, os.Symlink(target, path))
	require.NoError(t, writeScript(path, "#!/bin/sh\n"))
	raw, err := os.ReadFile(target)
	require.NoError(t, err)
	assert.Equal(t, "mine", string(raw))
	info, err := os.Lstat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o755), info.Mode())
}

// Headers without end and clients that send nothing are cut.
func TestBounds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	dial := func() *tls.Conn {
		conn, err := tls.Dial("tcp", w.server.Addr(), w.client.Transport.(*http.Transport).TLSClientConfig)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
		return conn
	}
	huge := dial()
	_, err := fmt.Fprintf(huge, "GET /is_alive HTTP/1.1\r\nHost: x\r\nX-Long: %s\r\n\r\n", strings.Repeat("x", 64<<10))
	if err == nil {
		resp, err := http.ReadResponse(bufio.NewReader(huge), nil)
		if err == nil {
			assert.Equal(t, http.StatusRequestHeaderFieldsTooLarge, resp.StatusCode)
		}
	}
	slow := dial()
	_, err = io.WriteString(slow, "GET /is_alive HTTP/1.1\r\n")
	require.NoError(t, err)
	begin := time.Now()
	_, err = io.ReadAll(slow) // until it is cut
	if ne, ok := errors.AsType[net.Error](err); ok {
		assert.False(t, ne.Timeout(), "it is not cut")
	}
	assert.Less(t, time.Since(begin), patience)
	old, err := tls.Dial("tcp", w.server.Addr(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11})
	if !assert.Error(t, err) {
		_ = old.Close()
	}
}

// The tail of a long log is read without the rest of it.
func TestTailOfALongLog(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it asks Linux how much was read")
	}
	w := newWorld(t, nil)
	w.halt()
	folder, err := jobdir.Create(w.settings.JobsDir, "long", 1)
	require.NoError(t, err)
	log, err := eventlog.OpenWriter(folder.EventsPath(), eventlog.Options{})
	require.NoError(t, err)
	size := 100 << 20
	if os.Getenv("SIGNALMAN_LARGE_LOG") != "" {
		size = 1 << 30
	}
	var events []eventlog.Event
	for range 256 {
		events = append(events, eventlog.CmdOutput(time.Now(), strings.Repeat("0123456789abcde\n", 256)))
	}
	count := 0
	for n := 0; n < size; n += 4096 * len(events) {
		require.NoError(t, log.Append(events...))
		count += len(events)
	}
	require.NoError(t, log.Close())
	require.NoError(t, folder.Finish())
	w.start(nil)
	before, begin := bytesRead(t), time.Now()
	got := w.ask("GET", fmt.Sprintf("/jobs/long/log?start_from=%d", count-5), "")
	read := bytesRead(t) - before
	assert.Equal(t, 5, lines(got.body))
	assert.Less(t, read, int64(4<<20))
	t.Logf("log of %d MiB, %d events: the last 5 took %v and %d KiB read, of %d KiB", size>>20, count, time.Since(begin).Round(time.Microsecond), read>>10, len(got.body)>>10)
}

// bytesRead is how much this process has read so far.
func bytesRead(t *testing.T) int64 {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/io")
	require.NoError(t, err)
	var n int64
	_, err = fmt.Sscanf(string(raw), "rchar: %d", &n)
	require.NoError(t, err)
	return n
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	_, err := Certificate(cert, key, false, dir)
	require.ErrorIs(t, err, ErrNoCertificate)
	own, err := Certificate(cert, key, true, dir)
	require.NoError(t, err)
	again, err := Certificate(cert, key, true, dir)
	require.NoError(t, err)
	assert.Equal(t, own.Certificate, again.Certificate, "it stays over restarts")
	info, err := os.Stat(filepath.Join(dir, selfSignedName))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())

	raw, err := makeCertificate(time.Now().Add(-selfSignedLife))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, selfSignedName), raw, 0o600))
	renewed, err := Certificate(cert, key, true, dir)
	require.NoError(t, err)
	assert.True(t, renewed.Leaf.NotAfter.After(time.Now().Add(selfSignedRenew)))

	require.NoError(t, os.WriteFile(cert, raw, 0o600))
	_, err = Certificate(cert, key, true, dir)
	require.ErrorContains(t, err, "tls-key-path", "half of one is a mistake")
	require.NoError(t, os.WriteFile(key, raw, 0o600))
	given, err := Certificate(cert, key, true, dir)
	require.NoError(t, err)
	assert.NotEqual(t, renewed.Certificate, given.Certificate)
}

func TestNoSecret(t *testing.T) {
	_, err := New(Settings{}, nil)
	require.ErrorContains(t, err, "auth-token-secret")
}
