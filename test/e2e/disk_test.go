//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/admin"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/testdisk"
)

// newHostOnSmallDisk makes a host whose state folder is a file system of 16 MiB, of which a job wants 4 to be free.
func newHostOnSmallDisk(t *testing.T, args ...string) *host {
	t.Helper()
	h := newHost(t, hubtest.Options{}, args...)
	require.NoError(t, os.Mkdir(h.path("state"), 0o700))
	testdisk.MountAt(t, h.path("state"), testdisk.Limits{Bytes: 16 << 20})
	h.config("[admission]\nmin-disk = \"4MiB\"\nmin-inodes = 0\n")
	return h
}

// status is what "supervisor status" tells.
func (h *host) status() admin.Status {
	h.t.Helper()
	cmd := exec.Command(filepath.Join(binaries, "supervisor"), "status", "--json", "--state-dir", h.path("state"))
	cmd.Env = h.env
	out, err := cmd.Output()
	require.NoError(h.t, err)
	var st admin.Status
	require.NoError(h.t, json.Unmarshal(out, &st))
	return st
}

// paused waits until all slots are paused for want of disk space.
func (h *host) paused() {
	h.t.Helper()
	var st admin.Status
	eventually(h.t, "the slots are paused", func() bool {
		st = h.status()
		for _, s := range st.Slots {
			if s.State != "paused" {
				return false
			}
		}
		return true
	})
	for _, s := range st.Slots {
		assert.Regexp(h.t, `^only \d+ \w+ of disk free at `+regexp.QuoteMeta(h.path("state"))+` \(admission.min-disk is 4 MiB\)$`, s.Problem)
	}
}

// While the disk is full no jobs are taken, and none is lost; when there is room they run.
func TestJobsWaitForDiskSpace(t *testing.T) {
	t.Parallel()
	h := newHostOnSmallDisk(t, "--concurrency", "2")
	s := h.start()
	first := h.submit(hubtest.Request{Commands: []string{"echo one"}})
	assert.Equal(t, hub.ResultPassed, h.finished(first).Result)

	free := testdisk.Fill(t, h.path("state"))
	h.paused()
	var ids []string
	for range 4 {
		ids = append(ids, h.submit(hubtest.Request{Commands: []string{"echo more"}}))
	}
	s.saysOnce("asking for no more jobs", "only 0 B of disk free at "+h.path("state"), "slot=1")
	s.saysOnce("asking for no more jobs", "slot=2")
	for _, id := range ids {
		job, _ := h.hub.Job(id)
		assert.Equal(t, hubtest.JobQueued, job.State)
	}
	free()
	for _, id := range ids {
		assert.Equal(t, hub.ResultPassed, h.finished(id).Result)
		h.delivered(id)
	}
	s.saysOnce("asking for jobs again", "slot=1")
}

// The supervisor starts on a full disk, waits for room, with a registration and without, and can be told to leave.
func TestStartOnAFullDisk(t *testing.T) {
	t.Parallel()
	h := newHostOnSmallDisk(t)
	first := h.start()
	h.agentState(hub.StateWaitingForJobs)
	testdisk.Fill(t, h.path("state"))
	first.kill()
	for range 2 { // the first leaves in good order, and with it the registration
		s := h.start()
		s.says("asking for no more jobs")
		h.paused()
		s.signal(syscall.SIGTERM)
		assert.Zero(t, s.exit())
		assert.Empty(t, h.hub.Agents())
	}
	assert.Equal(t, 1, h.hub.Requests(hubtest.Register))
}

// The disk fills up while a job runs. What its commands print then is lost, and its log says so; everything else is as ever:
// the commands, their exit codes, the epilogues, the result, each event once at the hub.
func TestDiskFillsWhileAJobRuns(t *testing.T) {
	t.Parallel()
	for name, crash := range map[string]bool{"supervisor lives": false, "supervisor is killed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHostOnSmallDisk(t)
			s := h.start()
			flood := "for i in $(seq 1 300); do printf 'x%.0s' $(seq 1 1000); echo; done"
			id := h.submit(hubtest.Request{
				Commands: []string{
					"echo before; touch " + h.path("ready") + "; " + h.untilFile("full") + "; " + flood,
					"touch " + h.path("second") + "; " + h.untilFile("go-on") + "; (exit 7)",
					"echo never",
				},
				EpilogueAlways: []string{"touch " + h.path("always")},
				EpilogueOnFail: []string{"touch " + h.path("on-fail")},
			})
			h.output(id, "before")
			free := testdisk.Fill(t, h.path("state"))
			h.write("full", "")
			eventually(t, "the second command runs", func() bool { _, err := os.Stat(h.path("second")); return err == nil })
			if crash {
				s.kill()
				s = h.start()
			}
			waiting := h.submit(hubtest.Request{Commands: []string{"echo after"}})
			h.write("go-on", "")
			assert.Equal(t, hub.ResultFailed, h.finished(id).Result)
			h.paused()
			h.delivered(id)
			codes := map[string]int{}
			events, err := h.hub.Events(id)
			require.NoError(t, err)
			for _, e := range events {
				if e.Event == "cmd_finished" {
					codes[strings.SplitN(e.Directive, ";", 2)[0]] = *e.ExitCode
				}
			}
			assert.Equal(t, map[string]int{
				"Exporting environment variables": 0, "Injecting Files": 0, "echo before": 0,
				"touch " + h.path("second"): 7, "touch " + h.path("always"): 0, "touch " + h.path("on-fail"): 0,
			}, codes)
			assert.FileExists(t, h.path("always"))
			assert.FileExists(t, h.path("on-fail"))
			said := h.outputOf(id)
			var lost int
			for _, m := range regexp.MustCompile(`\[signalman\] (\d+) bytes of output were lost: no space left on device\n`).FindAllStringSubmatch(said, -1) {
				var n int
				_, err := fmt.Sscan(m[1], &n)
				require.NoError(t, err)
				lost += n
			}
			assert.Positive(t, lost, said)
			// Each byte is there or told as lost. Line ends aren't counted here if they are there, and the other sections have some text.
			assert.InDelta(t, 300*1000, lost+strings.Count(said, "x"), 400)

			free()
			assert.Equal(t, hub.ResultPassed, h.finished(waiting).Result)
			h.delivered(waiting)
			s.signal(syscall.SIGTERM)
			assert.Zero(t, s.exit())
		})
	}
}
