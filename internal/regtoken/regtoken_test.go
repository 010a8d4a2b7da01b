//go:build unix

package regtoken_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/internal/regtoken"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "reg-t0ken-of-this-test"

func TestText(t *testing.T) {
	got, err := regtoken.Text(token).Token(t.Context())
	require.NoError(t, err)
	assert.Equal(t, token, got)
	_, err = regtoken.Source{}.Token(t.Context())
	require.ErrorContains(t, err, "set token, token-file or token-command")
}

func TestFileIsReadAnewEachTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	s := regtoken.File(path)
	for _, content := range []string{token, "  " + token + "2\r\n\n", token + "3"} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		got, err := s.Token(t.Context())
		require.NoError(t, err)
		assert.Equal(t, strings.TrimSpace(content), got)
	}
}

// ConfigMaps and Secrets are symlinks that are replaced.
func TestFileBehindASymlink(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "token")
	for i := range 2 {
		target := filepath.Join(dir, fmt.Sprint(i))
		require.NoError(t, os.WriteFile(target, fmt.Appendf(nil, "%s-%d\n", token, i), 0o600))
		require.NoError(t, os.Symlink(target, link+".new"))
		require.NoError(t, os.Rename(link+".new", link))
		got, err := regtoken.File(link).Token(t.Context())
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprintf("%s-%d", token, i), got)
	}
}

func TestFileThatHasNoToken(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	for name, c := range map[string]struct {
		content *string
		path    string
		want    string
	}{
		"missing":    {path: filepath.Join(dir, "none"), want: "no such file"},
		"folder":     {path: dir, want: "no regular file"},
		"pipe":       {path: fifo, want: "no regular file"},
		"empty":      {content: new(""), want: "it is empty"},
		"blank":      {content: new(" \n\t"), want: "it is empty"},
		"two lines":  {content: new(token + "\nother"), want: "more than one line"},
		"with space": {content: new(token + " other"), want: "holds a space"},
		"binary":     {content: new(token + "\x00\xff"), want: "holds a space or another character"},
		"huge":       {content: new(strings.Repeat("a", 65<<10)), want: "more than 64 KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			path := c.path
			if c.content != nil {
				path = filepath.Join(t.TempDir(), "token")
				require.NoError(t, os.WriteFile(path, []byte(*c.content), 0o600))
			}
			got, err := regtoken.File(path).Token(t.Context())
			require.ErrorContains(t, err, c.want)
			assert.ErrorContains(t, err, path+" (token-file)")
			assert.NotContains(t, err.Error(), token)
			assert.NotContains(t, err.Error(), "\n")
			assert.Equal(t, 1, strings.Count(err.Error(), path), err.Error())
			assert.Empty(t, got)
		})
	}
}

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct{ line, want string }{
		"prints":          {"echo " + token, token},
		"white space":     {"printf '\\n  " + token + " \\r\\n\\n'", token},
		"a pipe":          {"echo x" + token + " | cut -c2-", token},
		"its environment": {"echo $THE_TOKEN", token},
		"says more":       {"echo fetching >&2; echo " + token, token},
		"much on stderr":  {"head -c 300000 /dev/zero >&2; echo " + token, token},
		"a daemon":        {"sleep 300 & echo $! > " + dir + "/pid; echo " + token + "; kill -0 $!", token},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := regtoken.Command(c.line, []string{"PATH=" + os.Getenv("PATH"), "THE_TOKEN=" + token}).Token(t.Context())
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
	raw, err := os.ReadFile(dir + "/pid")
	require.NoError(t, err)
	var pid int
	_, err = fmt.Sscan(string(raw), &pid)
	require.NoError(t, err)
	require.Greater(t, pid, 1)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL), "a child in the background is left alone")
}

func TestCommandThatFails(t *testing.T) {
	for name, c := range map[string]struct{ line, want string }{
		"exit code":         {"echo " + token + "; echo 'first' >&2; echo 'vault is sealed' >&2; exit 3", "exit status 3: vault is sealed"},
		"signal":            {"echo no >&2; kill -9 $$", "signal: killed: no"},
		"not there":         {"no-such-command-of-this-test", "exit status 127: "},
		"syntax":            {"echo 'a", "exit status 2: "},
		"nothing":           {"true", "it is empty"},
		"nothing but words": {"echo 'not logged in' >&2", "it is empty: not logged in"},
		"two lines":         {"echo " + token + "; echo " + token, "more than one line"},
		"a page":            {"echo '<html> " + token + "'", "holds a space"},
		"endless":           {"yes " + token + " | head -c 1000000", "more than 64 KiB"},
		"quotes the token":  {"echo " + token + "; echo \"token " + token + " refused\" >&2; exit 1", "exit status 1: token [hidden] refused"},
		"long complaint":    {"printf 'x%.0s' {1..999} >&2; exit 1", strings.Repeat("x", 200) + "…"},
		"controls":          {"printf '\\033[31mred\\033[0m\\n' >&2; exit 1", "exit status 1: [31mred[0m"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := regtoken.Command(c.line, os.Environ()).Token(t.Context())
			require.ErrorContains(t, err, c.want)
			assert.ErrorContains(t, err, "token-command")
			assert.NotContains(t, err.Error(), token)
			assert.NotContains(t, err.Error(), "\n")
			assert.Empty(t, got)
		})
	}
}

func TestCommandHasWhatTheCallerHasLessSystemds(t *testing.T) {
	one := regtoken.Command("echo $(env | grep -c -e NOTIFY_SOCKET -e WATCHDOG -e LISTEN_)-$(env | grep -c ^VAULT_ADDR=)", []string{
		"PATH=" + os.Getenv("PATH"), "NOTIFY_SOCKET=/x", "WATCHDOG_USEC=1", "WATCHDOG_PID=1", "LISTEN_FDS=1", "VAULT_ADDR=https://x",
	})
	got, err := one.Token(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "0-1", got)
}

// All that the command has started ends with it.
func TestCommandThatHangs(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("process groups are ended on Linux")
	}
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := regtoken.Command("sleep 300 & echo $! > "+dir+"/new; mv "+dir+"/new "+dir+"/pid; wait", os.Environ()).Token(ctx)
		failed <- err
	}()
	var pid int
	require.Eventually(t, func() bool {
		raw, err := os.ReadFile(dir + "/pid")
		if err != nil {
			return false
		}
		_, err = fmt.Sscan(string(raw), &pid)
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	require.Greater(t, pid, 1)
	cancel()
	require.ErrorIs(t, <-failed, context.Canceled)
	require.Eventually(t, func() bool {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(raw), ") Z ")
	}, time.Minute, 10*time.Millisecond)
}

func TestKeyFollowsTheSourceNotTheContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(path, []byte("a"), 0o600))
	before := regtoken.File(path).Key()
	require.NoError(t, os.WriteFile(path, []byte("b"), 0o600))
	assert.Equal(t, before, regtoken.File(path).Key())
	keys := map[string]bool{}
	for _, s := range []regtoken.Source{
		regtoken.Text("/x"), regtoken.Text("x"), regtoken.File("/x"), regtoken.File("/y"), regtoken.Command("/x", nil), regtoken.Command("y", nil),
	} {
		keys[s.Key()] = true
	}
	assert.Len(t, keys, 6)
	assert.Equal(t, token, regtoken.Text(token).Key(), "as earlier versions had it")
}

func TestSourcesShowNoToken(t *testing.T) {
	s := regtoken.Text(token)
	for _, shown := range []string{
		s.String(), fmt.Sprintf("%v %+v %#v %s %q %x %d", s, s, s, s, s, s, s), fmt.Sprintf("%+v", struct{ S regtoken.Source }{s}),
	} {
		assert.NotContains(t, shown, token)
		assert.NotContains(t, shown, fmt.Sprintf("%x", token))
	}
}

func TestExposed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(path, []byte(token), 0o600))
	for mode, want := range map[os.FileMode]string{
		0o600: "", 0o400: "", 0o640: "", 0o660: "", 0o644: "can read", 0o604: "can read", 0o666: "can change", 0o602: "can change",
	} {
		require.NoError(t, os.Chmod(path, mode))
		got := regtoken.Exposed(path)
		if want == "" {
			assert.Empty(t, got, "%o", mode)
			continue
		}
		assert.Contains(t, got, want, "%o", mode)
		assert.Contains(t, got, path)
		assert.Contains(t, got, "chmod")
	}
	assert.Empty(t, regtoken.Exposed(path+"-missing"))
}
