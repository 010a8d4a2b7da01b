package hubtest_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

func TestPayloadCanBeHadOnce(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	auth := w.register("a", "")
	raw := `{"job_id":"j","number":12345678901234567890,
		"env_vars":[{"name":"CI","value":"dHJ1ZQ=="},{"name":"SEMAPHORE_ARTIFACT_TOKEN","value":"c2VjcmV0"},{"name":"PASSWORD","value":"c2VjcmV0"}],
		"files":[{"path":"a","content":"c2VjcmV0","mode":"0600"}],
		"compose":{"containers":[{"name":"main","env_vars":[{"name":"P","value":"c2VjcmV0"}]}]},
		"callbacks":{"token":"secret"},"logger":{"max_size_in_bytes":5}}`
	id, err := w.hub.SubmitJSON([]byte(raw))
	require.NoError(t, err)
	require.Equal(t, "j", id)

	code, _ := w.payload(auth, "j")
	require.Equal(t, 404, code, "not this agent's job")
	require.Equal(t, "run-job j", w.wait(auth))
	code, first := w.payload(auth, "j")
	require.Equal(t, 200, code)
	logger := first["logger"].(map[string]any)
	require.Equal(t, w.hub.LogURL("j"), logger["url"])
	require.Equal(t, "push", logger["method"])
	require.NotEmpty(t, logger["token"])
	require.EqualValues(t, 5, logger["max_size_in_bytes"])

	_, text, err := w.call(deadline(t), "GET", w.api("/jobs/j"), auth, "")
	require.NoError(t, err)
	require.NotContains(t, text, "c2VjcmV0")
	require.NotContains(t, text, logger["token"])
	require.Contains(t, text, "12345678901234567890")
	require.Contains(t, text, "dHJ1ZQ==", "what is no secret stays")
	var second map[string]any
	require.NoError(t, json.Unmarshal([]byte(text), &second))
	require.Equal(t, hubtest.Sanitized, second["files"].([]any)[0].(map[string]any)["content"])
	require.Equal(t, 2, w.job("j").Fetches)

	code, _, err = w.call(deadline(t), "GET", w.api("/jobs/j"), "", "")
	require.NoError(t, err)
	require.Equal(t, 401, code)
	code, _, err = w.call(deadline(t), "GET", w.api("/jobs/j"), "Token x", "")
	require.NoError(t, err)
	require.Equal(t, 404, code)
}

func TestSubmitJSONFillsInWhatIsMissing(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	for name, raw := range map[string]string{
		"empty":            `{}`,
		"id of wrong type": `{"job_id":7}`,
		"logger null":      `{"logger":null}`,
		"logger a list":    `{"logger":[]}`,
		"own logger":       `{"logger":{"url":"http://127.0.0.1:1/x","token":"mine"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			auth := w.register(t.Name()[len("TestSubmitJSONFillsInWhatIsMissing/"):], "")
			id, err := w.hub.SubmitJSON([]byte(raw))
			require.NoError(t, err)
			require.NotEmpty(t, id)
			require.Equal(t, "run-job "+id, w.wait(auth))
			_, got := w.payload(auth, id)
			switch name {
			case "empty":
				require.Equal(t, id, got["job_id"])
				require.Equal(t, w.hub.LogURL(id), got["logger"].(map[string]any)["url"])
			case "id of wrong type":
				require.EqualValues(t, 7, got["job_id"])
			case "logger null":
				require.Contains(t, got, "logger")
				require.Nil(t, got["logger"])
			case "logger a list":
				require.Equal(t, []any{}, got["logger"])
			case "own logger":
				require.Equal(t, "mine", got["logger"].(map[string]any)["token"])
			}
			w.running(auth, id)
		})
	}
	for _, raw := range []string{`null`, `[]`, `"x"`, `{`, ``} {
		_, err := w.hub.SubmitJSON([]byte(raw))
		require.Error(t, err, raw)
	}
	w.submit("twice")
	_, err := w.hub.Submit(hubtest.Request{ID: "twice"})
	require.Error(t, err)
}

func TestSubmitRawIsSentAsItIs(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	auth := w.register("a", "")
	for id, raw := range map[string]string{
		"null": `null`, "broken": `{not json`, "empty": ``, "list": `[1,2]`, "other-id": `{"job_id":"x"}`,
	} {
		require.NoError(t, w.hub.SubmitRaw(id, []byte(raw)))
		require.Equal(t, "run-job "+id, w.wait(auth))
		for range 2 {
			code, text, err := w.call(deadline(t), "GET", w.api("/jobs/"+id), auth, "")
			require.NoError(t, err)
			require.Equal(t, 200, code)
			require.Equal(t, raw, text)
		}
		require.Equal(t, "wait-for-jobs", w.finish(auth, id, "failed"))
	}
}

func TestRefresh(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	idle := w.register("idle", "")
	code, _ := w.post("/refresh", idle, "")
	require.Equal(t, 422, code)
	code, _ = w.post("/refresh", "", "")
	require.Equal(t, 401, code)
	code, _ = w.post("/refresh", "Token x", "")
	require.Equal(t, 404, code)

	auth, url, logAuth := w.taken("j")
	require.Equal(t, 200, w.push(url, logAuth, 0, "a\n"))
	w.hub.ExpireLogTokens("j")
	require.Equal(t, 401, w.push(url, logAuth, 1, "b\n"))
	code, text := w.post("/refresh", auth, "")
	require.Equal(t, 200, code)
	var out struct{ Token string }
	require.NoError(t, json.Unmarshal([]byte(text), &out))
	require.Equal(t, 200, w.push(url, "Bearer "+out.Token, 1, "b\n"))
	require.Equal(t, "a\nb\n", string(w.hub.Log("j")))
}

func TestWaitingCalls(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	finished := make(chan hubtest.Job, 1)
	go func() {
		j, _ := w.hub.WaitFinished(deadline(t), "j")
		finished <- j
	}()
	auth, url, logAuth := w.taken("j")
	tailed := make(chan string, 1)
	go func() {
		all := ""
		for n := 0; ; {
			lines, err := w.hub.WaitLog(deadline(t), "j", n)
			if err != nil || lines == nil {
				break
			}
			for _, line := range lines {
				all += string(line) + "|"
			}
			n += len(lines)
		}
		tailed <- all
	}()
	require.Equal(t, 200, w.push(url, logAuth, 0, "a\nb\n"))
	require.Equal(t, 200, w.push(url, logAuth, 2, "c\n"))
	w.finish(auth, "j", "passed")
	j := <-finished
	require.EqualValues(t, "passed", j.Result)
	require.Equal(t, 3, j.LogEventsAtEnd)
	require.Equal(t, "a|b|c|", <-tailed)
	require.NoError(t, w.hub.WaitRequests(deadline(t), hubtest.Logs, 2))
	w.submit("k")
	require.Equal(t, []string{"j", "k"}, []string{w.hub.Jobs()[0].ID, w.hub.Jobs()[1].ID})
}

func TestCloseEndsWaits(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	errs := make(chan error, 1)
	go func() {
		_, err := w.hub.WaitFinished(deadline(t), "never")
		errs <- err
	}()
	w.hub.Close()
	require.ErrorIs(t, <-errs, hubtest.ErrClosed)
	require.ErrorIs(t, w.hub.Up(), hubtest.ErrClosed)
}
