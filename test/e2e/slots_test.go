//go:build unix

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// Twelve jobs on four slots: each slot has a home of its own, and every log is right.
func TestFourSlots(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{}, "--concurrency", "4")
	h.config("[secrets]\nfiles = []\n") // the jobs print theirs
	h.start()
	meeting := h.path("meeting")
	require.NoError(t, os.Mkdir(meeting, 0o755))
	var ids []string
	for i := range 12 {
		ids = append(ids, h.submit(hubtest.Request{
			Env:   []hubtest.EnvVar{{Name: "NUMBER", Value: fmt.Sprint(i)}},
			Files: []hubtest.File{{Path: "~/mine", Content: fmt.Sprintf("file of %d\n", i), Mode: "0600"}},
			Commands: []string{
				"mkdir ~/busy && touch " + meeting + "/$NUMBER && echo home $HOME pwd $PWD",
				"until [ $(ls " + meeting + " | wc -l) -ge 4 ]; do sleep 0.02; done", // the first four meet
				"for i in $(seq 1 500); do echo $NUMBER line $i; done; cat ~/mine; rmdir ~/busy",
			},
		}))
	}
	homes := map[string]int{}
	for i, id := range ids {
		job := h.finished(id)
		assert.Equal(t, hub.ResultPassed, job.Result, "job %d:\n%s", i, h.outputOf(id))
		h.delivered(id)
		_, rest, _ := strings.Cut(h.outputOf(id), "home ")
		home, _, _ := strings.Cut(rest, " ")
		slot := strings.TrimPrefix(job.Agent, agentName+"-")
		if job.Agent == agentName {
			slot = "1"
		}
		assert.Equal(t, h.path("state/homes/"+slot), home)
		homes[home]++
		var want strings.Builder
		fmt.Fprintf(&want, "Exporting NUMBER\nInjecting %[1]s/mine with file mode 0600\nhome %[1]s pwd %[1]s\n", home)
		for line := 1; line <= 500; line++ {
			fmt.Fprintf(&want, "%d line %d\n", i, line)
		}
		fmt.Fprintf(&want, "file of %d\nExporting SEMAPHORE_JOB_RESULT\n", i)
		assert.Equal(t, want.String(), h.outputOf(id))
	}
	assert.Len(t, homes, 4)
}

// jobUser makes a user for jobs; the test needs to be root's.
func jobUser(t *testing.T, dir string) *user.User {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can run jobs as another user")
	}
	name := fmt.Sprintf("sgn%d", os.Getpid())
	home := filepath.Join(dir, "users-home")
	out, err := exec.Command("useradd", "--create-home", "--home-dir", home, "--shell", "/bin/bash", name).CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Cleanup(func() {
		out, err := exec.Command("userdel", name).CombinedOutput()
		assert.NoError(t, err, "%s", out)
	})
	u, err := user.Lookup(name)
	require.NoError(t, err)
	return u
}

// A job of another user has its own home and temporary folder, and can't read what the supervisor keeps.
func TestJobUser(t *testing.T) {
	t.Parallel()
	h := newHost(t, hubtest.Options{})
	u := jobUser(t, h.dir)
	h.config("[jobs]\nstop-grace = \"300ms\"\n")
	h.args = append(h.args, "--job-user", u.Username)
	s := h.start()
	state := h.path("state")
	id := h.submit(hubtest.Request{
		ID:    "of-another-user",
		Env:   []hubtest.EnvVar{{Name: "SECRET", Value: "s3cret"}},
		Files: []hubtest.File{{Path: "new/folder/file", Content: "mine\n", Mode: "0600"}, {Path: h.path("users-home/key"), Content: "key\n", Mode: "0400"}},
		Commands: []string{
			"id -un; pwd; echo $HOME $USER $LOGNAME",
			"touch $TMPDIR/file && mktemp >/dev/null && stat -c '%U %a' $TMPDIR",
			"cat new/folder/file key; stat -c '%n %U %G %a' new new/folder new/folder/file key",
			"cd " + state + "/jobs/of-another-user && for f in job.json request.json events.jsonl worker.log ../../instance-id ../../lock ../../agents/1.json; do " +
				"cat $f 2>&1 | sed 's/.*: //'; done",
			"ls " + state + " " + state + "/jobs 2>&1 | sed 's/.*: //'",
			"cat /proc/$PPID/environ 2>&1 | sed 's/.*: //'; kill -9 $PPID 2>&1 | sed 's/.*- //'",
			"echo to the controlling terminal >/dev/tty && echo '$SECRET'",
			"echo to the terminal by its name >$(tty)",
		},
	})
	job := h.finished(id)
	require.Equal(t, hub.ResultPassed, job.Result, "%s", h.outputOf(id))
	home, denied := u.HomeDir, "Permission denied\n"
	assert.Equal(t, "Exporting SECRET\n"+
		"Injecting "+home+"/new/folder/file with file mode 0600\nInjecting "+home+"/key with file mode 0400\n"+
		u.Username+"\n"+home+"\n"+home+" "+u.Username+" "+u.Username+"\n"+
		u.Username+" 700\n"+
		"mine\nkey\n"+fmt.Sprintf("new %[1]s %[1]s 755\nnew/folder %[1]s %[1]s 755\nnew/folder/file %[1]s %[1]s 600\nkey %[1]s %[1]s 400\n", u.Username)+
		strings.Repeat(denied, 7)+
		strings.Repeat(denied, 2)+
		denied+"Operation not permitted\n"+
		"to the controlling terminal\n$SECRET\nto the terminal by its name\n"+
		"Exporting SEMAPHORE_JOB_RESULT\n", h.outputOf(id))
	h.delivered(id)
	assert.Empty(t, s.logLines("set job-user"))

	// What such a job starts is ended all the same.
	stopped := h.submit(hubtest.Request{Commands: []string{h.stubborn(), "echo waiting; sleep 10008"}})
	h.output(stopped, "waiting\n")
	require.True(t, h.hub.StopJob(stopped))
	assert.Equal(t, hub.ResultStopped, h.finished(stopped).Result)
	assert.Empty(t, h.marked())

	killed := h.submit(hubtest.Request{Commands: []string{h.stubborn(), "echo waiting; sleep 10009"}})
	h.output(killed, "waiting\n")
	require.NoError(t, syscall.Kill(h.workerPID(killed), syscall.SIGKILL))
	assert.Equal(t, hub.ResultFailed, h.finished(killed).Result)
	assert.Empty(t, h.marked())

	// With more than one slot the slots' homes are the user's.
	s.signal(syscall.SIGTERM)
	assert.Zero(t, s.exit())
	h.start("--concurrency", "2")
	slot := h.submit(hubtest.Request{Commands: []string{"pwd; touch mine; stat -c %U . mine"}})
	assert.Equal(t, hub.ResultPassed, h.finished(slot).Result, "%s", h.outputOf(slot))
	assert.Contains(t, h.outputOf(slot), h.path("state/homes/"))
	assert.Contains(t, h.outputOf(slot), u.Username+"\n"+u.Username+"\n")
}
