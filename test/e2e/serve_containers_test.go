//go:build unix

package e2e

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/creack/pty"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/testimage"
)

// The jump point leads into the main container, with the job's variables; with a terminal, where there is one.
func TestJumpIntoAContainer(t *testing.T) {
	t.Parallel()
	eng := testimage.Engine(t)
	image := testimage.Build(t, eng, true, "ENV OF_THE_IMAGE=yes")
	h := newHosted(t)
	h.serve()
	const jump = "/tmp/ssh_jump_point"
	h.post("job-1", object{
		"callbacks": nil, "executor": "dockercompose", "ssh_public_keys": []string{b64("ssh-ed25519 AAAA dev@laptop")},
		"env_vars": []object{{"name": "WHO", "value": b64("it's\nme")}},
		"compose":  object{"containers": []object{{"name": "main", "image": image}, {"name": "db", "image": image, "command": `sh -c "` + untilTold + `"`}}},
	}, "echo begun; touch /marker; until [ -e /gate ]; do sleep 0.1; done")
	eventually(t, "the job runs", func() bool { return strings.Contains(h.jobLog("job-1"), `"output":"begun`) })
	assert.Equal(t, "ssh-ed25519 AAAA dev@laptop signalman-job\n", h.read("home/.ssh/authorized_keys"))

	through := func(stdin string, args ...string) (out, errOut string, err error) {
		cmd := exec.CommandContext(h.ctx(), jump, args...)
		cmd.Env, cmd.Stdin = h.env, strings.NewReader(stdin)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err = cmd.Run()
		return stdout.String(), stderr.String(), err
	}
	out, errOut, err := through("", "sh", "-c", `echo "$WHO|$OF_THE_IMAGE|$1"; ls /marker; echo err >&2; exit 7`, "sh", "a  b")
	assert.Equal(t, "it's\nme|yes|a  b\n/marker\n", out)
	assert.Equal(t, "err\n", errOut)
	assert.ErrorContains(t, err, "exit status 7")
	out, _, err = through("echo from-stdin-$WHO\n")
	require.NoError(t, err)
	assert.Equal(t, "from-stdin-it's me\n", strings.ReplaceAll(out, "\nme", " me"))

	cmd := exec.CommandContext(h.ctx(), jump)
	cmd.Env = slices.Concat(h.env, []string{"TERM=xterm"})
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 101})
	require.NoError(t, err)
	defer terminal.Close()
	_, err = io.WriteString(terminal, "shopt -q login_shell && echo login-$((40+2)); [ -t 0 ] && echo terminal-$((40+2)); touch /gate; exit 3\n")
	require.NoError(t, err)
	said, _ := io.ReadAll(terminal) // its end is an error of the terminal's
	assert.Contains(t, string(said), "login-42")
	assert.Contains(t, string(said), "terminal-42")
	assert.ErrorContains(t, cmd.Wait(), "exit status 3")

	eventually(t, "the job ends", func() bool { return strings.Contains(h.jobLog("job-1"), `"result":"passed"`) })
	eventually(t, "the next job can come", func() bool { _, st := h.ask("GET", "/status", ""); return strings.Contains(st, "waiting-for-job") })
	assert.NoFileExists(t, jump)
	_, err = os.Stat(h.path("home/.ssh/authorized_keys"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}
