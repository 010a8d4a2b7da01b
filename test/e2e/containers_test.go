//go:build unix

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/engine"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/testimage"
)

// containerHost is a host whose jobs run in containers of a real engine.
type containerHost struct {
	*host
	engine *engine.Engine
	image  string // has bash, and a volume of its own at /data
}

// newContainerHost makes a host, at whose end the engine must have nothing that is the host's. Its folder gates is in all containers as
// /gates.
func newContainerHost(t *testing.T, args ...string) *containerHost {
	t.Helper()
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true, "VOLUME /data")
	h := &containerHost{host: newHost(t, hubtest.Options{}, args...), engine: eng, image: image}
	require.NoError(t, os.Mkdir(h.path("gates"), 0o777))
	h.args = append(h.args, "--files", h.path("gates")+":/gates")
	t.Cleanup(func() {
		left := h.things(nil)
		assert.Empty(t, left, "left in the engine")
		for _, thing := range left {
			assert.NoError(t, eng.RemoveThing(h.ctx(), thing))
		}
	})
	return h
}

// things are what the engine has of the host's jobs, or of those with further labels.
func (h *containerHost) things(labels map[string]string) []engine.Thing {
	h.t.Helper()
	instance := h.instance()
	if instance == "" { // it has had no supervisor yet
		return nil
	}
	mine := map[string]string{"signalman.instance": instance}
	maps.Copy(mine, labels)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	things, err := h.engine.List(ctx, mine)
	require.NoError(h.t, err)
	return things
}

// instance is the mark of all that is the host's.
func (h *containerHost) instance() string { return strings.TrimSpace(h.read("state/instance-id")) }

// ofJob are the things of one job.
func (h *containerHost) ofJob(id string) []engine.Thing {
	h.t.Helper()
	return h.things(map[string]string{"signalman.job": id})
}

// request is a job of main and a service called db, which is silent and ends when it is told to.
func (h *containerHost) request(commands ...string) hubtest.Request {
	return hubtest.Request{Commands: commands, Containers: []hubtest.Container{
		{Name: "main", Image: h.image},
		{Name: "db", Image: h.image, Command: `sh -c "` + untilTold + `"`},
	}}
}

// unhealthy makes an image whose health check never ends well, and leaves a sign of itself in gates.
func (h *containerHost) unhealthy() string {
	h.t.Helper()
	return testimage.Build(h.t, h.engine, true, `HEALTHCHECK --interval=1s --retries=1000 CMD /bin/touch /gates/checked && false`)
}

// exists tells whether a file is there.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// untilTold lets the shell that is a service wait for its end.
const untilTold = `trap 'exit 0' TERM; while :; do sleep 0.1; done`

// settled waits until the supervisor knows that the hub has a job's log so far: after its death in the middle of a request the next one
// waits for half a minute until that is certain.
func (h *host) settled(id string) {
	h.t.Helper()
	eventually(h.t, "the log is acknowledged", func() bool {
		raw, err := os.ReadFile(filepath.Join(h.jobDir(id), "acked.json"))
		var state struct {
			Log struct {
				Acked  int   `json:"acked"`
				LostTo int64 `json:"lost_to"`
			} `json:"log"`
		}
		job, _ := h.hub.Job(id)
		return err == nil && json.Unmarshal(raw, &state) == nil && state.Log.LostTo == 0 && state.Log.Acked == job.LogEvents
	})
}

// gate is a command that waits, in a container, until the test opens a gate.
func gate(name string) string { return "until [ -e /gates/" + name + " ]; do sleep 0.02; done" }

func (h *containerHost) open(gate string) {
	h.t.Helper()
	h.write("gates/"+gate, "")
}

// ownVolume is a command that prints the name of the anonymous volume of the container it runs in.
const ownVolume = `sed -n "s|.*/volumes/\([^/ ]*\)/_data /data .*|\1|p" /proc/self/mountinfo`

// volumes are the names of all volumes that the engine has, whosever they are.
func (h *containerHost) volumes() []string {
	h.t.Helper()
	out, err := exec.CommandContext(h.ctx(), "docker", "volume", "ls", "-q").Output()
	require.NoError(h.t, err)
	return strings.Fields(string(out))
}

// next checks that the slot takes another job in containers.
func (h *containerHost) next() {
	h.t.Helper()
	id := h.submit(h.request("echo next"))
	assert.Equal(h.t, hub.ResultPassed, h.finished(id).Result, "%s", h.outputOf(id))
	assert.Empty(h.t, h.ofJob(id))
}

// The log of a job in containers has the sections of the hub's protocol, in its order, and everything runs in main.
func TestContainerJob(t *testing.T) {
	t.Parallel()
	h := newContainerHost(t)
	h.write("gates/pre.sh", "echo before, in $(cat /etc/where); export HOOKED=yes\n")
	h.write("gates/post.sh", "echo after, in $(cat /etc/where) $GREETING\n")
	h.args = append(h.args, "--pre-job-hook-path", "/gates/pre.sh", "--source-pre-job-hook", "--post-job-hook-path", "/gates/post.sh")
	h.start()
	commands := []string{
		`echo "$GREETING $HOOKED $FROM_CONTAINER $PWD $(id -un)"; [ -t 1 ]; cd /tmp; f() { echo "f in $PWD: $1"; }`,
		`f "$API_TOKEN"; wc -c <~/in-home; wc -c </etc/absolute; stat -c '%a %n' ~/in-home /etc/absolute`,
		"nslookup db >/dev/null && echo db is there",
		"(exit 7)",
	}
	r := h.request(append(commands, "echo never")...)
	r.Env = []hubtest.EnvVar{{Name: "GREETING", Value: "good day"}, {Name: "API_TOKEN", Value: "s3cret-of-the-job"}}
	r.Files = []hubtest.File{{Path: "in-home", Content: "of home\n", Mode: "0600"}, {Path: "/etc/absolute", Content: "of etc\n", Mode: "0644"}}
	r.Containers[0].Env = []hubtest.EnvVar{{Name: "FROM_CONTAINER", Value: "c"}}
	r.Containers[0].Files = []hubtest.File{{Path: "/etc/where", Content: "main", Mode: "0644"}}
	r.EpilogueAlways = []string{"echo always $SEMAPHORE_JOB_RESULT"}
	r.EpilogueOnPass = []string{"echo never"}
	r.EpilogueOnFail = []string{"echo it failed; false"}
	id := h.submit(r)
	job := h.finished(id)
	assert.Equal(t, hub.ResultFailed, job.Result)
	assert.Equal(t, hubtest.EndedByAgent, job.EndedBy)
	assert.Equal(t, []string{
		"job_started",
		"begin Pulling docker images...", "output " + h.image + " is on this host\n", "end Pulling docker images...: 0",
		"begin Starting the docker image...", "output Starting a new bash session.\n", "end Starting the docker image...: 0",
		"begin Exporting environment variables", "output Exporting API_TOKEN\nExporting GREETING\n", "end Exporting environment variables: 0",
		"begin Injecting Files", "output Injecting in-home with file mode 0600\nInjecting /etc/absolute with file mode 0644\n", "end Injecting Files: 0",
		"begin Running the pre-job hook configured in the agent", "output before, in main\n", "end Running the pre-job hook configured in the agent: 0",
		"begin " + commands[0], "output good day yes c /root root\n", "end " + commands[0] + ": 0",
		"begin " + commands[1], "output f in /tmp: ***\n8\n7\n600 /root/in-home\n644 /etc/absolute\n", "end " + commands[1] + ": 0",
		"begin " + commands[2], "output db is there\n", "end " + commands[2] + ": 0",
		"begin " + commands[3], "end " + commands[3] + ": 7",
		"begin Exporting environment variables", "output Exporting SEMAPHORE_JOB_RESULT\n", "end Exporting environment variables: 0",
		"begin echo always $SEMAPHORE_JOB_RESULT", "output always failed\n", "end echo always $SEMAPHORE_JOB_RESULT: 0",
		"begin echo it failed; false", "output it failed\n", "end echo it failed; false: 1",
		"begin Running the post-job hook configured in the agent", "output after, in main good day\n",
		"end Running the post-job hook configured in the agent: 0",
		"job_finished failed",
	}, h.transcript(id))
	h.delivered(id)
	assert.Empty(t, h.ofJob(id))
}

// Twenty jobs on four slots, all with the same names for their containers, don't see each other's, and leave nothing in the engine.
func TestContainerJobsSideBySide(t *testing.T) {
	t.Parallel()
	h := newContainerHost(t, "--concurrency", "4")
	h.start()
	var ids []string
	for i := range 20 {
		// The service tells whose it is, and what its volume is called.
		r := h.request(ownVolume, "until wget -q -O- http://db/; do sleep 0.05; done")
		r.Containers[1].Command = `sh -c "mkdir /www && (echo $WHOSE; ` + strings.ReplaceAll(strings.ReplaceAll(ownVolume, `\`, `\\`), `"`, `\"`) +
			`) >/www/index.html && httpd -h /www; ` + untilTold + `"`
		r.Containers[1].Env = []hubtest.EnvVar{{Name: "WHOSE", Value: fmt.Sprintf("of job %d", i)}}
		ids = append(ids, h.submit(r))
	}
	var volumes []string
	for i, id := range ids {
		require.Equal(t, hub.ResultPassed, h.finished(id).Result, "%s", h.outputOf(id))
		h.delivered(id)
		main := strings.TrimSpace(h.section(id, ownVolume))
		served := strings.Split(h.section(id, "until wget -q -O- http://db/; do sleep 0.05; done"), "\n")
		require.Len(t, served, 3, "%q", served)
		assert.Equal(t, fmt.Sprintf("of job %d", i), served[0])
		volumes = append(volumes, main, served[1])
	}
	assert.Empty(t, h.things(nil))
	slices.Sort(volumes)
	assert.Len(t, slices.Compact(volumes), 40)
	there := h.volumes()
	for _, v := range volumes {
		assert.Regexp(t, "^[0-9a-f]{64}$", v)
		assert.NotContains(t, there, v)
	}
}
