package hubtest_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

func TestStartFrom(t *testing.T) {
	for _, c := range []struct {
		name  string
		posts []any // start_from, body, start_from, body …
		want  string
	}{
		{"appends", []any{0, "a\nb\n", 2, "c\n"}, "a b c"},
		{"replay of the same batch", []any{0, "a\nb\n", 2, "c\nd\n", 2, "c\nd\n"}, "a b c d"},
		{"longer replay", []any{0, "a\n", 1, "b\n", 1, "b\nc\n"}, "a b c"},
		{"shorter replay loses the tail", []any{0, "a\n", 1, "b\nc\nd\n", 1, "b\n"}, "a b"},
		{"cut inside of a batch", []any{0, "a\nb\nc\nd\n", 2, "x\n"}, "a b x"},
		{"cut over batches", []any{0, "a\n", 1, "b\n", 2, "c\n", 1, "x\n"}, "a x"},
		{"a gap closes up", []any{0, "a\n", 7, "b\n"}, "a b"},
		{"0 starts anew", []any{0, "a\nb\n", 0, "c\n"}, "c"},
		{"an empty batch cuts", []any{0, "a\nb\n", 1, ""}, "a"},
		{"no line end, empty lines", []any{0, "\na\n\n\nb"}, "a b"},
		{"bodies aren't validated", []any{0, "{nonsense\n"}, "{nonsense"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, hubtest.Options{})
			_, url, auth := w.taken("j")
			for i := 0; i < len(c.posts); i += 2 {
				require.Equal(t, 200, w.push(url, auth, c.posts[i].(int), c.posts[i+1].(string)))
			}
			require.Equal(t, c.want, string(bytes.Join(w.hub.LogLines("j"), []byte(" "))))
			require.Equal(t, c.want, strings.TrimSpace(strings.ReplaceAll(string(w.hub.Log("j")), "\n", " ")))
			require.Equal(t, len(strings.Fields(c.want)), w.job("j").LogEvents)
		})
	}
}

func TestLogStatuses(t *testing.T) {
	w := newWorld(t, hubtest.Options{MaxEvents: 2})
	_, url, auth := w.taken("j")
	call := func(url, auth, body string) int {
		code, _, err := w.call(deadline(t), "POST", url, auth, body)
		require.NoError(t, err)
		return code
	}
	require.Equal(t, 401, call(url+"?start_from=0", "", "a\n"))
	require.Equal(t, 401, call(url+"?start_from=0", "Bearer x", "a\n"))
	require.Equal(t, 401, call(url+"?start_from=0", strings.Replace(auth, "Bearer", "Token", 1), "a\n"))
	require.Equal(t, 400, call(url, auth, "a\n"))
	require.Equal(t, 400, call(url+"?start_from=-1", auth, "a\n"))
	require.Equal(t, 404, call(w.hub.LogURL("other")+"?start_from=0", auth, "a\n"))
	require.Equal(t, 413, call(url+"?start_from=0", auth, "a\nb\nc\n"))
	require.Equal(t, 200, call(url+"?start_from=0", auth, "a\nb\n"))
	posts := w.hub.LogPosts("j")
	require.Len(t, posts, 7)
	last := posts[6]
	require.Equal(t, hubtest.LogPost{Seq: last.Seq, At: w.clock.Now(), Events: 2, Bytes: 4, Status: 200}, last)
	require.Equal(t, w.clock.Now(), w.job("j").FirstLogAt)
}

func TestFullLogIsTrimmedOnce(t *testing.T) {
	w := newWorld(t, hubtest.Options{MaxLogSize: 4})
	_, url, auth := w.taken("j")
	require.Equal(t, 200, w.push(url, auth, 0, "abcdef\n"), "checked before the append")
	require.Equal(t, 422, w.push(url, auth, 1, "b\n"))
	require.Equal(t, 422, w.push(url, auth, 1, "b\n"))
	lines := w.hub.LogLines("j")
	require.Len(t, lines, 2)
	require.Contains(t, string(lines[1]), `"cmd_output"`)
	require.Equal(t, 200, w.push(url, auth, 0, "anew\n"))
}

func TestManyEventsByDefault(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	_, url, auth := w.taken("j")
	require.Equal(t, 200, w.push(url, auth, 0, strings.Repeat("x\n", 2000)))
	require.Equal(t, 413, w.push(url, auth, 2000, strings.Repeat("x\n", 2001)))
}

func TestLargeLog(t *testing.T) {
	w := newWorld(t, hubtest.Options{MaxLogSize: -1})
	_, url, auth := w.taken("j")
	line := `{"event":"cmd_output","timestamp":1800000000,"output":"` + strings.Repeat("x", 1000) + `"}` + "\n"
	batch := strings.Repeat(line, 2000)
	const batches = 50
	for i := range batches {
		require.Equal(t, 200, w.push(url, auth, i*2000, batch))
	}
	require.Equal(t, batches*2000, w.job("j").LogEvents)
	require.Equal(t, batches*len(batch), len(w.hub.Log("j")))
	lines := w.hub.LogLines("j")
	require.Equal(t, strings.TrimSpace(line), string(lines[batches*2000-1]))
}

func TestEventsDecodes(t *testing.T) {
	w := newWorld(t, hubtest.Options{})
	_, url, auth := w.taken("j")
	require.Equal(t, 200, w.push(url, auth, 0, `{"event":"cmd_finished","timestamp":9,"directive":"d","exit_code":0,"started_at":1,"finished_at":2}`))
	events, err := w.hub.Events("j")
	require.NoError(t, err)
	zero := 0
	require.Equal(t, []hubtest.Event{{Event: "cmd_finished", Timestamp: 9, Directive: "d", ExitCode: &zero, StartedAt: 1, FinishedAt: 2}}, events)
	require.Equal(t, 200, w.push(url, auth, 1, `nonsense`))
	_, err = w.hub.Events("j")
	require.Error(t, err)
}

func TestBodyThatComesTooSlowly(t *testing.T) {
	w := newWorld(t, hubtest.Options{BodyReadTimeout: 50 * time.Millisecond})
	_, url, auth := w.taken("j")
	addr := strings.TrimPrefix(url, "http://")
	addr, path, _ := strings.Cut(addr, "/")
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "POST /%s?start_from=0 HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Length: 100\r\n\r\na\n", path, auth)
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, 503, resp.StatusCode)
	require.Equal(t, "request timed out", strings.TrimSpace(string(text)))
	require.Empty(t, w.hub.LogPosts("j"))
}
