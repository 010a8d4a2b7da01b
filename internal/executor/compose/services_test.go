package compose

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/testimage"
	"github.com/signalman-ci/signalman/shared/protocol"
	"github.com/signalman-ci/signalman/test/harness"
)

// A service that answers on a port with a file's content.
const answering = `sh -c "while :; do nc -l -p 80 -e cat /answer; done"`

// ask gives a script that prints a service's answer as soon as it has one.
func ask(service string) string {
	return `until answer=$(nc -w 5 ` + service + ` 80 </dev/null 2>/dev/null) && [ -n "$answer" ]; do usleep 50000; done; echo "$answer"`
}

// A service that ends with a code when it is told to.
const mortal = `sh -c "trap 'echo oh no >&2; exit 7' TERM; echo listening; sleep 1000 & wait"`

// kill ends a service of mortal.
func (w *world) kill(name string) {
	w.t.Helper()
	id := w.things(name)[0].ID
	require.Eventually(w.t, func() bool {
		lines, err := w.engine.LastLines(within(w.t), id, 5)
		return err == nil && strings.Contains(strings.Join(lines, "\n"), "listening")
	}, patience, look)
	require.NoError(w.t, w.engine.Signal(within(w.t), id, "TERM"))
}

func TestServices(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true, `CMD ["sleep", "1000"]`)
	answer := func(text string) []protocol.File {
		return []protocol.File{{Path: "/answer", Content: []byte(text), Mode: 0o600}}
	}
	w := newWorld(t, eng, image,
		protocol.Container{Name: "db", Image: image, Command: answering, Files: answer("from db")},
		protocol.Container{Name: "DB.Other_1", Image: image, Command: answering, Files: answer("from the other")},
		protocol.Container{Name: "who", Image: image, Entrypoint: "sh -c", User: "app",
			Command: `'echo "$(id -un) $WHO $(cat ~/note)" >/tmp/answer; while :; do nc -l -p 8080 -e cat /tmp/answer; done'`,
			Env:     []protocol.EnvVar{{Name: "WHO", Value: "it's me"}}, Files: []protocol.File{{Path: "~/note", Content: []byte("note\n"), Mode: 0o644}}},
		protocol.Container{Name: "default", Image: image})
	other := newWorld(t, eng, image, protocol.Container{Name: "db", Image: image, Command: answering, Files: answer("of another job")})
	other.job.ID = w.job.ID     // as another agent on this host may have it
	otherShell := other.shell() // the same names in another job don't get in the way

	sh := w.shell()
	assert.Equal(t, []string{"Pulling docker images...", "Starting the docker image..."}, w.log.directives())
	out, code := w.log.of(t, "Starting the docker image...")
	assert.Equal(t, "Starting a new bash session.\n", out)
	assert.Zero(t, code)
	out, _ = w.run(sh, ask("db"))
	assert.Equal(t, "from db\n", out)
	out, _ = w.run(sh, ask("DB.Other_1"))
	assert.Equal(t, "from the other\n", out)
	out, _ = w.run(sh, strings.Replace(ask("who"), "80", "8080", 1))
	assert.Equal(t, "app it's me note\n", out)
	out, _ = other.run(otherShell, ask("db"))
	assert.Equal(t, "of another job\n", out)
	assert.Len(t, w.things(""), 6, "five containers and a network")
}

// What an image says of how it is run holds where the job says nothing.
func TestServiceRunsAsItsImageSays(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true)
	service := testimage.Build(t, eng, true, `ENTRYPOINT ["sh", "-c", "echo entry $0; sleep 1000"]`, `CMD ["image's"]`)
	w := newWorld(t, eng, image,
		protocol.Container{Name: "a", Image: service},
		protocol.Container{Name: "b", Image: service, Command: "'the job''s'"},
		protocol.Container{Name: "c", Image: service, Entrypoint: "sh -c 'echo own; sleep 1000'"})
	w.shell()
	for name, want := range map[string]string{"a": "entry image's", "b": "entry the jobs", "c": "own"} {
		require.Eventually(t, func() bool {
			lines, err := eng.LastLines(within(t), w.things(name)[0].ID, 5)
			return err == nil && len(lines) == 1 && lines[0] == want
		}, patience, look, name)
	}
}

func TestServiceDies(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true)
	w := newWorld(t, eng, image, protocol.Container{Name: "db", Image: image, Command: mortal}, protocol.Container{Name: "silent", Image: image, Command: "sleep 1000"})
	sh := w.shell()

	// While a command runs that prints nothing more, but not within its line.
	out, ended := w.begin(sh, "echo one; printf two; until [ -e /tmp/go ]; do usleep 20000; done; echo ' three'; until [ -e /tmp/end ]; do usleep 20000; done; false")
	later(t, out, "two")
	w.kill("db")
	id := w.things("db")[0].ID
	require.Eventually(t, func() bool {
		state, err := eng.State(within(t), id)
		return err == nil && !state.Running
	}, patience, look)
	docker(t, "exec", w.things("main")[0].ID, "touch", "/tmp/go")
	later(t, out, "one\ntwo three\nWarning: the service db has ended with code 7; its last lines:\n  listening\n  oh no\n")
	docker(t, "exec", w.things("main")[0].ID, "touch", "/tmp/end")
	assert.Equal(t, outcome{exit: protocol.Exit{Code: 1}}, outcomeOf(t, ended))

	// Between two commands.
	require.NoError(t, eng.Signal(within(t), w.things("silent")[0].ID, "KILL"))
	require.Eventually(t, func() bool {
		text, _ := w.run(sh, "true")
		return text == "Warning: the service silent has ended with code 137.\n"
	}, patience, look)
	text, _ := w.run(sh, "true")
	assert.Empty(t, text, "it is said once")
}

// A service's death is told while a command goes on.
func TestNewsWhileACommandRuns(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true)
	w := newWorld(t, eng, image, protocol.Container{Name: "db", Image: image, Command: mortal})
	sh := w.shell()
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	var out harness.Buffer
	ended := make(chan error, 1)
	go func() {
		_, err := sh.Run(ctx, "echo one; sleep 1000", &out)
		ended <- err
	}()
	later(t, &out, "one\n")
	w.kill("db")
	later(t, &out, "one\nWarning: the service db has ended with code 7; its last lines:\n")
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestHealthChecks(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	plain := testimage.Build(t, eng, true)
	healthy := testimage.Build(t, eng, true, "HEALTHCHECK --interval=100ms --retries=1000 CMD [ -e /tmp/up ]")
	w := newWorld(t, eng, plain, protocol.Container{Name: "db", Image: healthy, Command: `sh -c "usleep 500000; touch /tmp/up; sleep 1000"`})
	w.shell()
	state, err := eng.State(within(t), w.things("db")[0].ID)
	require.NoError(t, err)
	assert.Equal(t, "healthy", state.Health)

	sick := testimage.Build(t, eng, true, "HEALTHCHECK --interval=100ms --retries=2 CMD echo not; echo well; exit 1")
	w = newWorld(t, eng, plain, protocol.Container{Name: "db", Image: sick, Command: "sleep 1000"})
	require.EqualError(t, w.prepare(), "the service db is unhealthy; its health check says: not well")
	mute := testimage.Build(t, eng, true, "HEALTHCHECK --interval=100ms --retries=1 CMD exit 1")
	w = newWorld(t, eng, plain, protocol.Container{Name: "db", Image: mute, Command: "sleep 1000"})
	require.EqualError(t, w.prepare(), "the service db is unhealthy")
	slow := testimage.Build(t, eng, true, "HEALTHCHECK --interval=1h CMD exit 1")
	w = newWorld(t, eng, plain, protocol.Container{Name: "db", Image: slow, Command: `sh -c "echo bye; exit 3"`})
	require.EqualError(t, w.prepare(), "the service db ended with code 3 before its health check passed; its last lines:\n  bye")
	_, code := w.log.of(t, "Starting the docker image...")
	assert.Equal(t, 1, code)
}
