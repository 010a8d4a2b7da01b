package k8s

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/testcluster"
)

// counting prints numbers for some seconds and ends with 7.
const counting = `for i in $(seq 1 30000); do echo $i; [ $((i % 3000)) = 0 ] && sleep 0.2; done; (exit 7)`

func counted() string {
	var text strings.Builder
	for i := 1; i <= 30000; i++ {
		fmt.Fprintln(&text, i)
	}
	return text.String()
}

// Exec streams that are cut again and again in mid-command lose and double nothing.
func TestStreamsAreCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.throughProxy()
	s := w.shell()
	out, ended := w.begin(s, counting)
	cut := 0
	for i := 1; i <= 30000; i += 6000 {
		later(t, out, fmt.Sprintf("\n%d\n", i+1))
		cut += p.Cut()
	}
	o := outcomeOf(t, ended)
	require.NoError(t, o.err)
	assert.Equal(t, 7, o.exit.Code)
	assert.True(t, counted() == out.String(), "the output is another one: %d bytes", len(out.String()))
	assert.Greater(t, cut, 3)
}

// The API server is away while a command ends.
func TestAPIServerIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.throughProxy()
	s := w.shell()
	out, ended := w.begin(s, "echo ready; sleep 2; "+counting)
	later(t, out, "ready\n")
	p.Refuse()
	select {
	case o := <-ended:
		require.Fail(t, "the command ended without its end being known", "%v", o)
	case <-time.After(8 * time.Second): // longer than the command takes, and than the log is silent about it
	}
	p.Accept()
	o := outcomeOf(t, ended)
	require.NoError(t, o.err)
	assert.Equal(t, 7, o.exit.Code)
	var lines []string
	for line := range strings.Lines(out.String()) {
		switch {
		case strings.HasPrefix(line, "Warning: there is no connection to the pod now; the command goes on there, and its output comes later. ("):
		case line == "The connection to the pod is back.\n", line == "ready\n":
		default:
			lines = append(lines, line)
		}
	}
	assert.True(t, counted() == strings.Join(lines, ""), "the output is another one: %d lines", len(lines))
	assert.Equal(t, 1, strings.Count(out.String(), "Warning: there is no connection"))
	assert.Equal(t, 1, strings.Count(out.String(), "The connection to the pod is back."))
}

// What became of a pod while the API server was away is told afterwards.
func TestPodIsDeletedWhileTheAPIServerIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.throughProxy()
	out, ended := w.begin(w.shell(), "echo ready; sleep 1000")
	later(t, out, "ready\n")
	p.Refuse()
	w.kubectl("delete", "pod", w.podName(), "--force", "--grace-period=0")
	p.Accept()
	o := outcomeOf(t, ended)
	require.ErrorContains(t, o.err, "The pod was deleted by someone else, or with its namespace, while the job ran.")
}

// A job that is stopped, or over, while the API server is away is ended once that is back.
func TestCloseWhileTheAPIServerIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.throughProxy()
	out, ended := w.begin(w.shell(), "echo ready; sleep 1000")
	later(t, out, "ready\n")
	p.Refuse()
	stopped := make(chan error, 1)
	go func() { stopped <- w.env.Stop(within(t)) }()
	select {
	case err := <-stopped:
		require.Fail(t, "stopped without a connection", "%v", err)
	case <-time.After(time.Second):
	}
	p.Accept()
	require.NoError(t, <-stopped)
	require.NoError(t, outcomeOf(t, ended).err)
	p.Refuse()
	closed := make(chan error, 1)
	go func() { closed <- w.env.Close(within(t)) }()
	select {
	case err := <-closed:
		require.Fail(t, "closed without a connection", "%v", err)
	case <-time.After(time.Second):
	}
	p.Accept()
	require.NoError(t, <-closed)
	w.env = nil
}

// The real one is restarted. Not parallel: the other tests need it.
func TestAPIServerRestarts(t *testing.T) {
	alone := testcluster.Alone(t)
	w := newWorld(t)
	s := w.shell()
	out, ended := w.begin(s, "echo ready; sleep 1; "+counting)
	later(t, out, "ready\n")
	alone.Kill(t, "apiserver")
	alone.Start(t, "apiserver")
	o := outcomeOf(t, ended)
	require.NoError(t, o.err)
	assert.Equal(t, 7, o.exit.Code)
	text := strings.ReplaceAll(strings.ReplaceAll(out.String(), "ready\n", ""), "The connection to the pod is back.\n", "")
	if i := strings.Index(text, "Warning: there is no connection"); i >= 0 {
		text = text[:i] + text[i+strings.Index(text[i:], "\n")+1:]
	}
	assert.True(t, counted() == text, "the output is another one: %q", text[:min(len(text), 500)])
}
