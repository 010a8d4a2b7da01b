package compose

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/engine"
	"github.com/signalman-ci/signalman/internal/testimage"
	"github.com/signalman-ci/signalman/shared/protocol"
)

func TestStop(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true)
	dir := t.TempDir()
	// A service that ignores TERM, and one that takes leave.
	w := newWorld(t, eng, image, protocol.Container{Name: "deaf", Image: image, Command: "sleep 1000"},
		protocol.Container{Name: "polite", Image: image, Command: `sh -c "trap 'echo bye >/leave/take; exit 0' TERM; echo listening; sleep 1000 & wait"`})
	w.options.Files = append(w.options.Files, hostFile(dir, "/leave"))
	w.set.StopGrace = 100 * time.Millisecond
	out, ended := w.begin(w.shell(), "trap '' INT TERM; (setsid sh -c 'sleep 1000; :' &); echo ready; sleep 1000; sleep 1000")
	later(t, out, "ready")
	require.NoError(t, w.env.Stop(within(t)))
	assert.True(t, outcomeOf(t, ended).exit.ShellEnded)
	sh := w.shell()
	again, exit := w.run(sh, "ps -o comm,args | grep -c '[s]leep 1000'")
	assert.Equal(t, "0\n", again)
	assert.Equal(t, 1, exit.Code)
	state, err := eng.State(within(t), w.things("deaf")[0].ID)
	require.NoError(t, err)
	assert.True(t, state.Running, "the post-job hook may need the services")

	polite := w.things("polite")[0].ID
	require.Eventually(t, func() bool {
		lines, err := eng.LastLines(within(t), polite, 5)
		return err == nil && len(lines) == 1
	}, patience, look)
	w.set.StopGrace = patience // for what doesn't take long
	require.NoError(t, eng.Signal(within(t), w.things("deaf")[0].ID, "KILL"))
	w.end()
	assert.FileExists(t, dir+"/take")
}

// A container that ignores its stop signal is killed after the grace.
func TestStopOfADeafService(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true)
	w := newWorld(t, eng, image, protocol.Container{Name: "deaf", Image: image, Command: `sh -c "trap '' TERM; while :; do sleep 1; done"`})
	w.set.StopGrace = 50 * time.Millisecond
	w.shell()
	require.NoError(t, w.env.Stop(within(t)))
	w.end()
}

// A job that is stopped while its services start leaves nothing.
func TestStopWhileStarting(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true)
	never := testimage.Build(t, eng, true, "HEALTHCHECK --interval=1h CMD true")
	for name, there := range map[string]func(w *world) bool{
		"a network":   func(w *world) bool { return len(w.things("")) > 0 },
		"a container": func(w *world) bool { return len(w.things("db")) > 0 },
		"all":         func(w *world) bool { return len(w.things("")) == 4 },
		"health": func(w *world) bool {
			things := w.things("db")
			if len(things) == 0 {
				return false
			}
			state, err := eng.State(within(t), things[0].ID)
			return err == nil && state.Running
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, eng, image, protocol.Container{Name: "db", Image: never, Command: "sleep 1000"}, protocol.Container{Name: "other", Image: image, Command: "sleep 1000"})
			ctx, cancel := context.WithCancel(within(t))
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				_, err := w.executor.Prepare(ctx, w.job, w.set, w.log)
				ended <- err
			}()
			require.Eventually(t, func() bool { return there(w) }, patience, look)
			cancel()
			require.ErrorIs(t, <-ended, context.Canceled)
			assert.Empty(t, w.things(""))
		})
	}
}

func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true, "VOLUME /data")
	for name, remove := range map[string]func(w *world){
		"at the end": func(w *world) { w.end() },
		"of a dead worker": func(w *world) {
			require.NoError(t, w.executor.Cleanup(within(t), &protocol.Job{ID: w.job.ID}, &protocol.Settings{InstanceID: "another"}))
			require.Len(t, w.things(""), 5)
			for range 2 {
				require.NoError(t, w.executor.Cleanup(within(t), &protocol.Job{ID: w.job.ID}, &protocol.Settings{InstanceID: w.set.InstanceID}))
				require.Empty(t, w.things(""))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, eng, image, protocol.Container{Name: "db", Image: image, Command: "sleep 1000"})
			w.run(w.shell(), "touch /data/x; sleep 1000 &")
			things := w.things("")
			require.Len(t, things, 5, "two containers with a volume each, and a network")
			network := things[slices.IndexFunc(things, func(thing engine.Thing) bool { return thing.Kind == engine.KindNetwork })].ID
			var volumes []string
			for _, name := range []string{"main", "db"} {
				volumes = append(volumes, docker(t, "inspect", "-f", `{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}}{{end}}{{end}}`, w.things(name)[0].ID))
			}
			docker(t, append([]string{"volume", "inspect"}, volumes...)...)
			// A container that the job has put into its network itself doesn't hold it.
			stranger := docker(t, "run", "-d", "--network", network, image, "sleep", "1000")
			defer docker(t, "rm", "-f", "-v", stranger)
			remove(w)
			left := docker(t, "volume", "ls", "-q")
			for _, v := range volumes {
				assert.NotEmpty(t, v)
				assert.NotContains(t, strings.Split(left, "\n"), v, "anonymous volumes go too")
			}
		})
	}
}
