//go:build linux || darwin

package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/internal/testdisk"
	"github.com/signalman-ci/signalman/shared/jobshell"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const deadline = time.Minute

// testOptions are those of a shell whose user has an empty home.
func testOptions(t testing.TB) Options {
	t.Helper()
	scripts := filepath.Join(t.TempDir(), "scripts")
	require.NoError(t, os.Mkdir(scripts, 0o700))
	home := t.TempDir()
	return Options{
		Dir:       home,
		Env:       []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TERM=xterm", "LANG=C.UTF-8"},
		ScriptDir: scripts,
	}
}

// testShell is a shell for one test, which checks at its end that no command's file is left.
type testShell struct {
	*Shell
	t testing.TB
}

func open(t testing.TB, change ...func(*Options)) testShell {
	t.Helper()
	options := testOptions(t)
	for _, c := range change {
		c(&options)
	}
	s, err := Open(t.Context(), options)
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, s.Close())
		left, err := os.ReadDir(options.ScriptDir)
		assert.NoError(t, err)
		assert.Empty(t, left)
	})
	return testShell{s, t}
}

func login(o *Options) { o.Login = true }

// profile writes a profile for both kinds of shells.
func profile(text string) func(*Options) {
	return func(o *Options) {
		for _, name := range []string{".bash_profile", ".bashrc"} {
			if err := os.WriteFile(filepath.Join(o.Dir, name), []byte(text), 0o600); err != nil {
				panic(err)
			}
		}
	}
}

func (s testShell) run(script string) (string, jobshell.Exit) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), deadline)
	defer cancel()
	var out bytes.Buffer
	exit, err := s.Run(ctx, script, &out)
	require.NoError(s.t, err, "script %.200q, output %.2000q", script, out.String())
	return out.String(), exit
}

// gives checks all that a script prints, and that it ends with code while the shell lives on.
func (s testShell) gives(script, output string, code int) {
	s.t.Helper()
	got, exit := s.run(script)
	assert.Equal(s.t, output, got, "output of %.200q", script)
	assert.Equal(s.t, jobshell.Exit{Code: code}, exit, "exit of %.200q", script)
}

// ends checks all that a script prints, and that the shell ends with code.
func (s testShell) ends(script, output string, code int) {
	s.t.Helper()
	got, exit := s.run(script)
	assert.Equal(s.t, output, got, "output of %.200q", script)
	assert.Equal(s.t, jobshell.Exit{Code: code, ShellEnded: true}, exit, "exit of %.200q", script)
	_, err := s.Run(s.t.Context(), "echo again", io.Discard)
	assert.ErrorIs(s.t, err, ErrEnded)
}

func TestScriptsAndCodes(t *testing.T) {
	for name, step := range map[string]struct {
		script, output string
		code           int
	}{
		"empty":                  {"", "", 0},
		"comment":                {"# nothing", "", 0},
		"no trailing newline":    {"echo a", "a\n", 0},
		"output without newline": {"printf a", "a", 0},
		"several lines":          {"echo a\necho b\n\nif true; then\n  echo c\nfi\n", "a\nb\nc\n", 0},
		"heredoc":                {"x=5\ncat <<EOF\n$x\n  '\"\nEOF\ncat <<'EOF'\n$x\nEOF", "5\n  '\"\n$x\n", 0},
		"status":                 {"false", "", 1},
		"status of the last":     {"false\ntrue", "", 0},
		"not found":              {"nosuchcommand_", "bash: nosuchcommand_: command not found\n", 127},
		"killed child":           {"sh -c 'kill -9 $$'", "", 137},
		"return":                 {"echo a; return 130; echo b", "a\n", 130},
		"break":                  {"echo a; break; echo b", "a\n", 0},
		"continue":               {"echo a; continue; echo b", "a\n", 0},
		"line number":            {"\necho $LINENO", "2\n", 0},
		"stdin at its end":       {"cat; cat -; read x; echo $?; sort; head -c1; echo done", "1\ndone\n", 0},
		"input from a pipe":      {"echo a | cat", "a\n", 0},
		"terminals":              {"[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo yes; tty </dev/tty >/dev/null; stty size", "yes\n24 80\n", 0},
		"tty":                    {"tty | grep -q ^/dev/ && echo x >$(tty)", "x\n", 0},
		"blocking":               {"[ ! -e /proc/self ] || (( 0$(sed -n 's/flags:\t//p' /proc/self/fdinfo/1) & 04000 )) || echo yes", "yes\n", 0},
		"carriage returns":       {`printf 'a\r\nb\n\tc'`, "a\r\nb\n\tc", 0},
		"interactive":            {"[[ $- == *i* ]] && echo yes", "yes\n", 0},
		"exclamation mark":       {"echo 'a!b' \"a!b\"", "a!b a!b\n", 0},
		"background, waited for": {"sleep 0 & wait; echo a", "a\n", 0},
		"background, killed":     {"sleep 1000 & kill $!; wait $!", "", 143},
		"background reader":      {"cat & wait", "", 0},
		"subshell exit":          {"(exit 4)", "", 4},
		"kill of the shell":      {"kill $$; echo a", "a\n", 0}, // an interactive shell ignores TERM
		"no files inherited":     {"bash -c 'for fd in 10 11 62 63; do (: >&$fd) 2>/dev/null || (: <&$fd) 2>/dev/null && echo $fd; done; true'", "", 0},
		"descriptors":            {"exec 9>>f 200>>f {fd}>>f; echo a >&9; echo b >&200; echo c >&$fd; wc -l <f; exec 9>&- 200>&- {fd}>&-", "3\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			s.gives(step.script, step.output, step.code)
			s.gives("echo alive", "alive\n", 0)
		})
	}
}

func TestSyntaxErrors(t *testing.T) {
	s := open(t)
	for _, script := range []string{"echo 'a", `echo "a`, "if true", "fi", "echo a; (", "cat <(", "${"} {
		out, exit := s.run(script)
		assert.NotZero(t, exit.Code, script)
		assert.False(t, exit.ShellEnded, script)
		assert.NotContains(t, out, "signalman", script)
		s.gives("echo alive", "alive\n", 0)
	}
	_, exit := s.run("echo 'a")
	assert.Equal(t, 2, exit.Code)
}

func TestWhatLastsFromCommandToCommand(t *testing.T) {
	s := open(t)
	s.gives("mkdir -p d && cd d", "", 0)
	s.gives("basename $PWD", "d\n", 0)
	s.gives("export A=1; b=2; f() { echo f $1; }; declare -A m=([k]=v)", "", 0)
	s.gives("sh -c 'echo $A'; echo $b; f 3; echo ${m[k]}", "1\n2\nf 3\nv\n", 0)
	s.gives("alias hi='echo hello'", "", 0)
	s.gives("hi there", "hello there\n", 0)
	s.gives("shopt -s nullglob extglob; set -f; IFS=:; set -- x y:z", "", 0)
	s.gives("shopt -q nullglob && shopt -q extglob && [[ $- == *f* ]] && printf '<%s>' $# $2", "<2><y><z>", 0)
	s.gives("unset IFS; set +f; trap 'echo bye' USR1", "", 0)
	s.gives("kill -USR1 $$", "bye\n", 0)
	s.gives("exec 5>five; umask 027", "", 0)
	s.gives("echo a >&5; cat five; umask", "a\n0027\n", 0)
	s.gives("sleep 1000 & pid=$!", "", 0)
	s.gives("kill $pid; wait $pid", "", 143)
	s.gives("env | grep -c -i signalman", "0\n", 1)
}

func TestOptionsOfTheUser(t *testing.T) {
	s := open(t)
	s.gives("set -u", "", 0)
	s.gives("echo a", "a\n", 0)
	_, exit := s.run("echo $nosuch_")
	assert.Equal(t, jobshell.Exit{Code: 1}, exit)
	s.gives("[[ $- == *u* ]] && set +u", "", 0)
	s.gives("set -o pipefail; set -o posix", "", 0)
	s.gives("false | true", "", 1)
	s.gives("set +o posix; set +o pipefail; set -a", "", 0)
	s.gives("echo a", "a\n", 0)
}

func TestTraceShowsOnlyTheUsersLines(t *testing.T) {
	s := open(t)
	s.gives("set -x\necho a", "++ echo a\na\n", 0)
	s.gives("echo b\necho $LINENO", "++ echo b\nb\n++ echo 2\n2\n", 0)
	_, exit := s.run("echo 'c")
	assert.Equal(t, 2, exit.Code)
	s.gives("set -x", "", 0)
	s.gives("set -v", "++ set -v\n", 0)
	s.gives("echo d\necho e", "++ echo d\nd\necho e\n++ echo e\ne\n", 0)
	s.gives("{ set +xv; } 2>/dev/null", "", 0)
	s.gives("echo f", "f\n", 0)
}

func TestUsersRedefinitions(t *testing.T) {
	const redefinitions = `
printf() { echo my printf; }; read() { echo my read; }; .() { echo my dot; }; source() { echo my source; }
set() { echo my set; }; unset() { echo my unset; }; :() { echo my colon; }; exit() { echo my exit; }; export() { echo no; }
alias printf='echo alias' read='echo alias' .='echo alias' while='echo alias' builtin='echo alias' set='echo alias'
alias export='echo alias'
`
	t.Run("in a command", func(t *testing.T) {
		s := open(t)
		s.gives(redefinitions, "", 0)
		s.gives("echo a; false", "a\n", 1)
		require.NoError(t, s.Export(t.Context(), []jobshell.EnvVar{{Name: "A", Value: "1"}}))
		s.gives("echo $A", "1\n", 0)
	})
	t.Run("in a profile", func(t *testing.T) {
		s := open(t, profile(strings.ReplaceAll(redefinitions, "while='echo alias'", "")))
		s.gives("echo a; false", "a\n", 1)
	})
}

func TestTraps(t *testing.T) {
	t.Run("EXIT", func(t *testing.T) {
		s := open(t)
		s.gives("trap 'echo bye' EXIT", "", 0)
		s.gives("echo a", "a\n", 0)
		s.ends("exit 3", "bye\n", 3)
	})
	t.Run("EXIT runs on Close", func(t *testing.T) {
		s := open(t)
		file := filepath.Join(t.TempDir(), "file")
		s.gives("trap 'echo bye >"+file+"' EXIT", "", 0)
		require.NoError(t, s.Close())
		assert.FileExists(t, file)
	})
	t.Run("ERR and DEBUG", func(t *testing.T) {
		s := open(t)
		s.gives("trap 'n=$((n+1)); false' DEBUG; trap 'e=1' ERR", "", 0)
		s.gives("false", "", 1)
		s.gives("echo $e; (exit 5)", "1\n", 5)
		s.gives("trap - DEBUG ERR", "", 0)
	})
	t.Run("noisy DEBUG", func(t *testing.T) {
		s := open(t)
		s.run("trap 'echo debug' DEBUG")
		out, exit := s.run("false")
		assert.Equal(t, 1, exit.Code)
		assert.LessOrEqual(t, strings.Count(out, "debug"), 3)
	})
	t.Run("PROMPT_COMMAND and PS1", func(t *testing.T) {
		s := open(t)
		s.gives("PROMPT_COMMAND='echo prompt'; PS1='prompt> '; PS0=start", "", 0)
		s.gives("echo a", "a\n", 0)
	})
}

func TestSetE(t *testing.T) {
	s := open(t)
	s.gives("set -e", "", 0)
	s.gives("false || true; ! true; if false; then :; fi; echo a", "a\n", 0)
	s.ends("echo b; (exit 7); echo c", "b\n", 7)
}

func TestShellEnds(t *testing.T) {
	for script, code := range map[string]int{
		"exit 3":                              3,
		"exit":                                0,
		"kill -9 $$":                          137,
		"kill -HUP $$; while :; do :; done":   129,
		"trap - TERM; exec sh -c 'kill $$'":   143,
		"exec sh":                             0,
		"exec sh -c 'exit 4'":                 4,
		"set -e; (exit 6)":                    6,
		"sleep 1000 & echo $! >pid; exit 5":   5,
		"exec sleep 0":                        0,
		"sh -c 'kill -9 $PPID'; sleep 0":      137,
		"break 99":                            0,
		"exec >file 2>&1 </dev/null; exit 11": 11,
	} {
		t.Run(script, func(t *testing.T) {
			for _, kind := range []func(*Options){login, func(*Options) {}} {
				s := open(t, kind)
				out, exit := s.run("echo before\n" + script)
				assert.Equal(t, jobshell.Exit{Code: code, ShellEnded: true}, exit)
				if script != "exec sh" { // which may print a prompt
					assert.Equal(t, "before\n", out)
				}
				_, err := s.Run(t.Context(), "true", io.Discard)
				assert.ErrorIs(t, err, ErrEnded)
				assert.NoError(t, s.Close())
				assert.NoError(t, s.Close())
				if pid, err := os.ReadFile(filepath.Join(s.options.Dir, "pid")); err == nil {
					kill(t, string(pid))
				}
			}
		})
	}
}

func TestShellEndsBetweenCommands(t *testing.T) {
	s := open(t)
	require.NoError(t, syscall.Kill(s.Pid(), syscall.SIGKILL))
	<-s.exited
	_, err := s.Run(t.Context(), "echo a", io.Discard)
	assert.ErrorIs(t, err, ErrEnded)
	assert.ErrorContains(t, err, "137")
}

func kill(t testing.TB, pid string) {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(pid))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(n, syscall.SIGKILL))
}

func TestBackgroundChildrenDontHoldACommand(t *testing.T) {
	s := open(t)
	for _, script := range []string{
		"sleep 1000 & echo $!",
		"(setsid sleep 1000 & echo $!)",
		"mkfifo f; f() { while :; do read x <>f; done; }; f & echo $!",
	} {
		out, exit := s.run(script)
		assert.Zero(t, exit.Code)
		kill(t, out)
	}
	// A flood from the background that goes on while a command ends.
	s.gives("mkfifo go flooded; { read x <go; exec yes; } & echo $! >pid", "", 0)
	flooded := sync.OnceFunc(func() {
		assert.NoError(t, os.WriteFile(filepath.Join(s.options.Dir, "flooded"), []byte("y\n"), 0))
	})
	exit, err := s.Run(t.Context(), "echo >go; read x <flooded; (exit 3)", writerFunc(func(p []byte) (int, error) {
		flooded()
		return len(p), nil
	}))
	require.NoError(t, err)
	assert.Equal(t, jobshell.Exit{Code: 3}, exit)
	s.run("kill $(cat pid)")
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestOutputBetweenCommandsComesWithTheNext(t *testing.T) {
	s := open(t)
	s.gives("mkfifo in out; { read x <in; echo late; head -c 200000 /dev/zero; echo x >out; } & ", "", 0)
	require.NoError(t, os.WriteFile(filepath.Join(s.options.Dir, "in"), []byte("go\n"), 0))
	_, err := os.ReadFile(filepath.Join(s.options.Dir, "out")) // so the child was not held up
	require.NoError(t, err)
	out, _ := s.run("echo next")
	assert.Equal(t, heldSize+len("next\n"), len(out))
	assert.True(t, strings.HasSuffix(out, "\x00next\n"))

	s.gives("{ read x <in; echo late; echo x >out; } & ", "", 0)
	require.NoError(t, os.WriteFile(filepath.Join(s.options.Dir, "in"), []byte("go\n"), 0))
	_, err = os.ReadFile(filepath.Join(s.options.Dir, "out"))
	require.NoError(t, err)
	s.gives("echo next", "late\nnext\n", 0)
}

func TestOutputIsExact(t *testing.T) {
	s := open(t)
	check := func(name string, want []byte) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "data")
		require.NoError(t, os.WriteFile(file, want, 0o600))
		got, exit := s.run("cat " + jobshell.Quote(file))
		assert.Equal(t, jobshell.Exit{}, exit)
		assert.True(t, got == string(want), "%s: got %d bytes, want %d", name, len(got), len(want))
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	check("all bytes", all)
	random := make([]byte, 1<<20)
	_, _ = rand.Read(random)
	check("random", random)
	check("one long line", append(bytes.Repeat([]byte("0123456789"), 1<<20), '\n'))
}

func TestScriptOfAMegabyte(t *testing.T) {
	s := open(t)
	script := ": " + strings.Repeat("a", 1<<20) + "\n" + strings.Repeat(": line\n", 1000) + "echo end; (exit 9)"
	s.gives(script, "end\n", 9)
}

func TestThousandCommandsNoneCut(t *testing.T) {
	s := open(t)
	random := mathrand.New(mathrand.NewPCG(1, 2))
	for i := range 1000 {
		size := random.IntN(20000)
		if i%2 == 0 {
			size = random.IntN(100)
		}
		want := strings.Repeat(string(rune('a'+i%26)), size)
		code := random.IntN(256)
		s.gives(fmt.Sprintf("printf '%%s' %s; (exit %d)", want, code), want, code)
	}
}

func TestOutputCantPassForAStatus(t *testing.T) {
	s := open(t)
	s.gives("echo 0 >status; printf '\\n0\\n\\nTOKEN 0 himBH\\n'; false", "\n0\n\nTOKEN 0 himBH\n", 1)
	// To whatever descriptors are open, the driver's own too: a shell's status lines without the token, long junk.
	_, exit := s.run(`trap "" PIPE; for fd in {0..255}; do
  { builtin printf '\nABCDEFGHIJKLMNOPQRSTUVWXYZ 0 himBH\n' >&$fd; printf '0\n' >&$fd; printf '%0100000d' 0 >&$fd; } 2>/dev/null
done; trap - PIPE; (exit 3)`)
	assert.Equal(t, jobshell.Exit{Code: 3}, exit)
	out, _ := s.run("set; declare -p; env; alias; trap -p; jobs")
	_, rest, _ := strings.Cut(s.cmd.Args[len(s.cmd.Args)-1], `%s\n' `)
	token, _, _ := strings.Cut(rest, " ")
	assert.Len(t, token, 26)
	assert.NotContains(t, out, token)
}

func TestExecRedirections(t *testing.T) {
	s := open(t)
	s.gives("exec 3>&1 >file", "", 0)
	s.gives("echo a; false", "", 1)
	s.gives("exec >&3 3>&-; cat file", "a\n", 0)
	s.gives("exec </dev/null >file 2>&1", "", 0)
	s.gives("echo b; (exit 6)", "", 6)
	s.gives("exec 62>x 63>x; echo c >&63; exec 62>&- 63>&-", "", 0)
	s.gives("exec </dev/tty >/dev/tty 2>&1; cat file", "b\n", 0)
	s.gives("exec > >(cat); exec 2>&1", "", 0)
	s.gives("false", "", 1)
}

func TestTerminalModesAreReset(t *testing.T) {
	s := open(t)
	for _, change := range []string{"stty sane", "stty raw", "stty echo icanon opost onlcr min 1", "reset -I 2>/dev/null; stty sane"} {
		s.run(change)
		s.gives("cat; printf 'a\\nb\\n'", "a\nb\n", 0)
	}
}

func TestExport(t *testing.T) {
	s := open(t)
	values := []jobshell.EnvVar{
		{Name: "EMPTY"},
		{Name: "QUOTES", Value: `it's "quoted" \ '' \' `},
		{Name: "MULTILINE", Value: "a\n\nb\r\n\tc\n"},
		{Name: "DOLLAR", Value: "$HOME ${x} $(echo no) `echo no` !! * ~ # ; & |"},
		{Name: "UNICODE", Value: "žluťoučký 馬 🐎 \u2028"},
		{Name: "BYTES", Value: "\xff\xfe\x01\x7f"},
		{Name: "_u1", Value: strings.Repeat("long ", 20000)},
	}
	require.NoError(t, s.Export(t.Context(), values))
	for _, v := range values {
		s.gives("printenv "+v.Name+"; true", v.Value+"\n", 0)
	}
	s.gives("set -x", "", 0)
	require.NoError(t, s.Export(t.Context(), []jobshell.EnvVar{{Name: "EMPTY", Value: "secret"}}))
	s.gives("{ set +x; } 2>/dev/null; echo $EMPTY", "secret\n", 0)

	require.NoError(t, s.Export(t.Context(), nil))
	for name, env := range map[string][]jobshell.EnvVar{
		"my-var":   {{Name: "my-var", Value: "secret"}},
		"1A":       {{Name: "1A", Value: "secret"}},
		"x; false": {{Name: "x; false", Value: "secret"}},
		"NUL":      {{Name: "NUL", Value: "secret\x00"}},
	} {
		err := s.Export(t.Context(), env)
		require.ErrorContains(t, err, name)
		assert.NotContains(t, err.Error(), "secret")
	}
}

func TestExportOfReadOnlyVariables(t *testing.T) {
	names := []string{"BASHOPTS", "BASH_VERSINFO", "EUID", "MINE", "PPID", "SHELLOPTS", "UID"}
	s := open(t)
	s.gives("readonly MINE=1", "", 0)
	env := []jobshell.EnvVar{{Name: "FIRST", Value: "1"}}
	for _, name := range names {
		env = append(env, jobshell.EnvVar{Name: name, Value: "secret"})
	}
	err := s.Export(t.Context(), append(env, jobshell.EnvVar{Name: "LAST", Value: "2"}))
	var refused *jobshell.RefusedError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, names, refused.Names)
	assert.NotContains(t, err.Error(), "secret")
	s.gives("sh -c 'echo $FIRST $LAST'; echo $MINE", "1 2\n1\n", 0)
}

func TestProfiles(t *testing.T) {
	const text = "echo noise; export FROM_PROFILE=$-; alias hi='echo hello'; PS1='> '; set -o vi; shopt -s checkwinsize"
	for name, kind := range map[string]func(*Options){"login": login, "plain": func(*Options) {}} {
		t.Run(name, func(t *testing.T) {
			s := open(t, kind, profile(text))
			s.gives("hi; [[ $FROM_PROFILE == *i* ]] && echo interactive", "hello\ninteractive\n", 0)
			out, _ := s.run("shopt -q login_shell; echo $?")
			assert.Equal(t, map[string]string{"login": "0\n", "plain": "1\n"}[name], out)
		})
	}
	t.Run("read-only TMOUT and set -x", func(t *testing.T) {
		s := open(t, profile("readonly TMOUT=1; readonly HISTFILE=~/h PROMPT_COMMAND='echo prompt'; set -x"))
		s.gives("echo a", "++ echo a\na\n", 0)
		select {
		case <-s.exited:
			t.Error("an idle shell has ended")
		case <-time.After(1200 * time.Millisecond): // more than TMOUT
		}
		s.gives("echo b", "++ echo b\nb\n", 0)
	})
	t.Run("asks", func(t *testing.T) {
		s := open(t, profile("read -p 'sure? ' answer; cat"))
		s.gives("echo a", "a\n", 0)
	})
	t.Run("fails", func(t *testing.T) {
		s := open(t, profile("false; nosuch; syntax ( error"))
		s.gives("echo a", "a\n", 0)
	})
	t.Run("ends", func(t *testing.T) {
		options := testOptions(t)
		profile("echo sorry; exit 4")(&options)
		_, err := Open(t.Context(), options)
		require.ErrorContains(t, err, "ended with code 4")
		require.ErrorContains(t, err, "~/.bashrc")
		require.ErrorContains(t, err, "sorry")
	})
	t.Run("hangs", func(t *testing.T) {
		options := testOptions(t)
		options.Login, options.StartTimeout = true, time.Second
		profile("echo starting; while :; do :; done")(&options)
		_, err := Open(t.Context(), options)
		// On a busy machine the shell may not have come to its profile.
		for ; options.StartTimeout < deadline && err != nil && !strings.Contains(err.Error(), "starting"); _, err = Open(t.Context(), options) {
			options.StartTimeout *= 2
		}
		require.ErrorContains(t, err, fmt.Sprintf("bash --login did not get ready within %v: look at ~/.bash_profile", options.StartTimeout))
		require.ErrorContains(t, err, "starting")
	})
	t.Run("hangs, cancelled", func(t *testing.T) {
		options := testOptions(t)
		profile("while :; do :; done")(&options)
		ctx, cancel := context.WithCancel(t.Context())
		options.Start = func(cmd *exec.Cmd) error {
			defer cancel()
			return cmd.Start()
		}
		_, err := Open(ctx, options)
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestNoBash(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Open(t.Context(), testOptions(t))
	require.ErrorContains(t, err, "bash is not installed")
}

func TestBadOptions(t *testing.T) {
	options := testOptions(t)
	options.Dir = "/no/such/folder"
	_, err := Open(t.Context(), options)
	require.ErrorContains(t, err, "/no/such/folder")

	options = testOptions(t)
	options.ScriptDir += "\n"
	_, err = Open(t.Context(), options)
	require.ErrorContains(t, err, "line break")
}

func TestCancel(t *testing.T) {
	for name, script := range map[string]string{
		"child":  "echo a; sleep 1000",
		"busy":   "echo a; while :; do :; done",
		"signal": "trap '' TERM HUP INT; echo a; while :; do :; done",
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			out := &cancelWriter{cancel: cancel}
			_, err := s.Run(ctx, script, out)
			require.ErrorIs(t, err, context.Canceled)
			assert.Equal(t, "a\n", out.String())
			_, err = s.Run(t.Context(), "true", io.Discard)
			require.ErrorContains(t, err, "still runs")
			group := s.Pid()
			require.NoError(t, s.Close())
			_ = syscall.Kill(-group, syscall.SIGKILL) // the sleep
		})
	}
	t.Run("before", func(t *testing.T) {
		s := open(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := s.Run(ctx, "echo a", io.Discard)
		require.ErrorIs(t, err, context.Canceled)
		s.gives("echo b", "b\n", 0)
	})
}

// cancelWriter cancels when the first output comes.
type cancelWriter struct {
	bytes.Buffer
	cancel func()
}

func (w *cancelWriter) Write(p []byte) (int, error) {
	w.cancel()
	return w.Buffer.Write(p)
}

func TestFailingWriter(t *testing.T) {
	s := open(t)
	exit, err := s.Run(t.Context(), "head -c 1000000 /dev/zero; (exit 3)", failingWriter{})
	require.ErrorIs(t, err, io.ErrShortWrite)
	assert.Equal(t, jobshell.Exit{Code: 3}, exit)
	s.gives("echo a", "a\n", 0)
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestOtherUser(t *testing.T) {
	nobody, err := user.Lookup("nobody")
	if os.Getuid() != 0 || err != nil {
		t.Skip("needs root and a user nobody")
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	s := open(t, func(o *Options) {
		var err error
		o.ScriptDir, err = os.MkdirTemp("", "session")
		require.NoError(t, err)
		t.Cleanup(func() { os.RemoveAll(o.ScriptDir) })
		require.NoError(t, os.Chown(o.ScriptDir, uid, -1))
		o.Dir = "/"
		o.Chown = func(path string) error { return os.Chown(path, uid, -1) }
		o.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	})
	s.gives("id -un; echo a >$(tty)", "nobody\na\n", 0)
}

func BenchmarkThroughput(b *testing.B) {
	s := open(b)
	const size = 64 << 20
	b.SetBytes(size)
	for b.Loop() {
		_, err := s.Run(b.Context(), fmt.Sprintf("head -c %d /dev/zero", size), io.Discard)
		require.NoError(b, err)
	}
}

func BenchmarkCommand(b *testing.B) {
	s := open(b)
	for b.Loop() {
		_, err := s.Run(b.Context(), "true", io.Discard)
		require.NoError(b, err)
	}
}

func BenchmarkOpen(b *testing.B) {
	options := testOptions(b)
	options.Login = true
	for b.Loop() {
		s, err := Open(b.Context(), options)
		require.NoError(b, err)
		require.NoError(b, s.Close())
	}
}

// On a full disk a shell still runs commands: their files are elsewhere meanwhile, and go as well.
func TestCommandsOnAFullDisk(t *testing.T) {
	elsewhere := t.TempDir()
	t.Setenv("TMPDIR", elsewhere)
	full := testdisk.Mount(t, testdisk.Limits{Bytes: 1 << 20})
	s := open(t, func(o *Options) { o.ScriptDir = full })
	s.gives("x=1", "", 0)
	free := testdisk.Fill(t, full)
	s.gives("echo $((x + 1))", "2\n", 0)
	s.gives(": > "+full+"/new 2>/dev/null && echo y > "+full+"/new", "bash: echo: write error: No space left on device\n", 1)
	left, err := os.ReadDir(elsewhere)
	require.NoError(t, err)
	assert.Empty(t, left)
	free()
	require.NoError(t, os.Remove(filepath.Join(full, "new")))
	s.gives("echo again", "again\n", 0)
}
