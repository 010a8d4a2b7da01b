package process

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// session starts a session and gives its leader and a process in it that isn't one of its children any more. The leader ends when
// its standard input does, which release sees to. The shell between the two has ended: the leader has waited for it.
func session(t *testing.T) (leader, member Identity, release func()) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `pid=$(env -i sleep 1000 </dev/null >/dev/null 2>&1 & echo $!); echo $pid; read end`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	var pid int
	_, err = fmt.Sscan(strings.TrimSpace(line), &pid)
	require.NoError(t, err)
	member, err = Identify(pid)
	require.NoError(t, err)
	t.Cleanup(func() { // a test that comes next may find it below its own process, its reaper
		assert.NoError(t, Kill(deadline(t), member))
		eventually(t, "the member has ended", func() bool { return !member.Alive() })
	})
	leader, err = Identify(cmd.Process.Pid)
	require.NoError(t, err)
	released := false
	release = func() {
		if !released {
			released = true
			_ = stdin.Close()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(release)
	return leader, member, release
}

func endSessions(t *testing.T, leaders ...Identity) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, EndSessions(ctx, time.Second, leaders))
}

func TestEndSessions(t *testing.T) {
	first, inFirst, release := session(t)
	second, inSecond, _ := session(t)
	_, inThird, _ := session(t)
	release()
	require.False(t, first.Alive())
	require.True(t, inFirst.Alive())

	endSessions(t)
	assert.True(t, inFirst.Alive())
	endSessions(t, first, second)
	assert.False(t, inFirst.Alive(), "its leader has ended before")
	assert.False(t, second.Alive())
	assert.False(t, inSecond.Alive())
	assert.True(t, inThird.Alive(), "another session")
	endSessions(t, first, second)
}

// A pid that another process has got, or that is of another boot, is no session of ours, nor is what isn't certain. Nothing is ended
// here: a mistake would end all that runs on the host.
func TestSessionsOfOthers(t *testing.T) {
	leader, member, _ := session(t)
	found, err := inSessions([]Identity{leader})
	require.NoError(t, err)
	require.ElementsMatch(t, []int{leader.PID, member.PID}, found)

	older, elsewhere, nowhere, never := leader, leader, leader, leader
	older.Start--
	elsewhere.Boot = "another"
	nowhere.Boot = ""
	never.Start = 0
	kernel, init := leader, leader
	kernel.PID, init.PID = 0, 1
	found, err = inSessions([]Identity{older, elsewhere, nowhere, never, kernel, init, {}, {PID: -1}})
	require.NoError(t, err)
	assert.Empty(t, found)
}
