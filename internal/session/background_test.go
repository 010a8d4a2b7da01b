//go:build linux

package session

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What timeout runs is in the background of the terminal, where the kernel stops who reads it or changes its modes. A
// stopped program ends by timeout's signal, after so long that the command's deadline is over.
const bounded = "timeout 1000 "

func TestBackgroundProcessesAreNotStopped(t *testing.T) {
	for name, step := range map[string]struct {
		script, output string
		code           int
	}{
		"read of stdin":              {bounded + "cat", "", 0},
		"read by a shell":            {bounded + "bash -c 'read x'", "", 1},
		"modes of stdin":             {bounded + "stty sane", "", 0},
		"modes of stdout":            {bounded + "stty -echo <&1", "", 0},
		"modes of /dev/tty":          {bounded + "stty -echo </dev/tty", "", 0},
		"read of stdout":             {bounded + "cat <&1 2>/dev/null", "", 1},
		"read of /dev/tty":           {bounded + "cat /dev/tty 2>/dev/null", "", 1},
		"write to /dev/tty":          {bounded + "bash -c 'echo a; echo b >/dev/tty; echo c'", "a\nb\nc\n", 0},
		"write to stdin":             {bounded + "bash -c 'echo a >&0'", "a\n", 0},
		"interactive shell":          {bounded + "bash -ic 'echo a' 2>/dev/null", "a\n", 0},
		"job control within":         {bounded + "bash -c 'set -m; cat; stty sane; echo a' 2>/dev/null", "a\n", 0},
		"group of its own":           {bounded + "bash -mc 'cat & wait; stty -echo & wait; echo a' 2>/dev/null", "a\n", 0},
		"session of its own":         {"setsid -w cat; setsid -w stty sane; echo a", "a\n", 0},
		"timeout is reported":        {"timeout 0.1 sleep 1000", "", 124},
		"foreground, all of these":   {"cat; stty -echo; stty -echo <&1; cat <&1; cat /dev/tty; stty -echo </dev/tty; echo a >/dev/tty", "a\n", 0},
		"interactive shell in front": {"bash -ic 'cat; echo a'", "a\n", 0},
		"job control":                {"set -m; cat; (cat; stty -echo); " + bounded + "cat; set +m", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			s.gives(step.script, step.output, step.code)
			s.gives("cat; printf 'a\\nb\\n'", "a\nb\n", 0)
		})
	}
}

func TestProgramsThatUseTheTerminal(t *testing.T) {
	for name, step := range map[string]struct{ needs, script, output string }{
		"script":         {"script", "script -qc 'tty >/dev/null && stty size; cat' /dev/null", "24 80\n"},
		"script, timed":  {"script", bounded + "script -qc 'echo a; read x' /dev/null", "a\n"},
		"tmux":           {"tmux", "export TMUX_TMPDIR=$PWD; " + bounded + "tmux new -d 'sleep 1000'; tmux ls -F a; tmux kill-server", "a\n"},
		"python":         {"python3", bounded + `python3 -c 'import sys; print(sys.stdin.isatty(), repr(sys.stdin.read()))'`, "True ''\n"},
		"python's input": {"python3", bounded + "python3 -c 'input()' 2>&1 | tail -n 1", "EOFError: EOF when reading a line\n"},
		"password":       {"python3", `python3 -c 'f = open("/dev/tty", "r+b", 0); f.write(b"Password: "); print(f.read())'`, "Password: b''\n"},
		"password, timed": {"python3", bounded + `python3 -c '
f = open("/dev/tty", "r+b", 0); f.write(b"Password: ")
try: f.read()
except OSError: print("none")'`, "Password: none\n"},
		"node": {"node", bounded + `node -e 'process.stdin.setRawMode(true); process.stdout.write("a\n", () => process.exit())'`, "a\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(step.needs); err != nil {
				t.Skip(err)
			}
			s := open(t)
			out, exit := s.run(step.script)
			assert.Equal(t, step.output, strings.ReplaceAll(out, "\r\n", "\n"))
			assert.Zero(t, exit.Code)
		})
	}
}

func TestOutputKeepsItsOrder(t *testing.T) {
	s := open(t)
	s.gives("for i in {1..500}; do echo $i; echo $i >/dev/tty; echo $i >&2; done", repeated(500, 3), 0)
	// What goes to the other terminal comes in an order of its own, but with its command.
	out, _ := s.run("for i in {1..500}; do echo $i >$(tty); done")
	assert.Equal(t, repeated(500, 1), out)
	out, _ = s.run("head -c 1000000 /dev/zero >&0")
	assert.Len(t, out, 1000000)
	s.gives("echo a", "a\n", 0)
}

func repeated(n, times int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(strconv.Itoa(i+1)+"\n", times))
	}
	return b.String()
}

func TestWindowSize(t *testing.T) {
	s := open(t)
	const sizes = "stty size; stty size <&1; stty size </dev/tty"
	s.gives(sizes, "24 80\n24 80\n24 80\n", 0)
	s.gives("stty rows 50 cols 200", "", 0)
	s.gives(sizes, "50 200\n50 200\n50 200\n", 0)
	s.gives("stty cols 100 </dev/tty", "", 0)
	s.gives(sizes, "50 100\n50 100\n50 100\n", 0)
}

func TestCloseHangsUp(t *testing.T) {
	s := open(t)
	fifo := filepath.Join(s.options.Dir, "fifo")
	s.gives("mkfifo fifo ready; (trap 'echo hup >fifo; exit' HUP; echo >ready; while :; do sleep 0.1; done) & read x <ready", "", 0)
	require.NoError(t, s.Close())
	told, err := os.ReadFile(fifo) // waits for the child
	require.NoError(t, err)
	assert.Equal(t, "hup\n", string(told))
}
