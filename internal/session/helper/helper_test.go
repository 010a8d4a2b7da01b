//go:build linux

package helper

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/internal/session"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// buildFolder is where the helper is built, once.
var buildFolder string

func TestMain(m *testing.M) {
	var err error
	if buildFolder, err = os.MkdirTemp("", "helper"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(buildFolder)
		os.Exit(code)
	}))
}

// place is somewhere the helper runs: a process on this host, or a container.
type place struct {
	dial Dialer
	gone func(t testing.TB) // checks that the server's folder is removed
}

func places() map[string]func(testing.TB) place {
	return map[string]func(testing.TB) place{"host": onHost, "container": inContainer}
}

func onHost(t testing.TB) place {
	binary := buildHelper(t)
	folder := filepath.Join(t.TempDir(), "f")
	return place{
		dial: dialer(binary, "relay", folder),
		gone: func(t testing.TB) { assert.NoDirExists(t, folder) },
	}
}

func inContainer(t testing.TB) place {
	if err := exec.Command("docker", "info").Run(); err != nil {
		t.Skip("no Docker engine: install docker.io and start dockerd as root to run this test")
	}
	image := "signalman-helper-test:" + strings.ToLower(rand.Text())
	docker(t, bytes.NewReader(rootWithBash(t)), "import", "-", image)
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", image).Run() })
	container := strings.TrimSpace(docker(t, nil, "run", "-d", "--network=none", image, "/bin/sleep", "infinity"))
	t.Cleanup(func() { _ = exec.Command("docker", "rm", "-f", container).Run() })
	docker(t, nil, "cp", buildHelper(t), container+":/helper")
	return place{
		dial: dialer("docker", "exec", "-i", container, "/helper", "relay", "/tmp/signalman"),
		gone: func(t testing.TB) { docker(t, nil, "exec", container, "/bin/bash", "-c", "[ ! -e /tmp/signalman ]") },
	}
}

func docker(t testing.TB, stdin io.Reader, args ...string) string {
	t.Helper()
	cmd := exec.Command("docker", args...)
	cmd.Stdin = stdin
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "docker %v: %s", args, stderr.String())
	return string(out)
}

func buildHelper(t testing.TB) string {
	t.Helper()
	binary := filepath.Join(buildFolder, "helper")
	if _, err := os.Stat(binary); err == nil {
		return binary
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "./testdata/signalman-helper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return binary
}

// rootWithBash is a tar of a small root file system: this host's bash and some commands, with the libraries they need.
func rootWithBash(t testing.TB) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	added := map[string]bool{}
	add := func(from, to string) {
		if added[to] {
			return
		}
		added[to] = true
		content, err := os.ReadFile(from)
		require.NoError(t, err)
		require.NoError(t, w.WriteHeader(&tar.Header{Name: to, Mode: 0o755, Size: int64(len(content))}))
		_, err = w.Write(content)
		require.NoError(t, err)
	}
	for _, name := range []string{"bash", "cat", "head", "sleep", "setsid", "stty", "env"} {
		path, err := exec.LookPath(name)
		require.NoError(t, err)
		add(path, "bin/"+name)
		libraries, err := exec.Command("ldd", path).Output()
		require.NoError(t, err)
		for _, word := range strings.Fields(string(libraries)) {
			if strings.HasPrefix(word, "/") {
				add(word, strings.TrimPrefix(word, "/"))
			}
		}
	}
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "tmp", Typeflag: tar.TypeDir, Mode: 0o1777}))
	require.NoError(t, w.Close())
	return buf.Bytes()
}

// dialer runs a command and gives its standard streams.
func dialer(name string, args ...string) Dialer {
	return func(context.Context) (io.ReadWriteCloser, error) {
		cmd := exec.Command(name, args...)
		stdin, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		return &streams{Reader: stdout, WriteCloser: stdin, cmd: cmd}, cmd.Start()
	}
}

type streams struct {
	io.Reader
	io.WriteCloser
	cmd  *exec.Cmd
	once sync.Once
}

// Close breaks the streams off as a dying connection would.
func (s *streams) Close() error {
	s.once.Do(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	})
	return nil
}

// breaking makes every connection break after so many bytes read, and counts them.
func breaking(dial Dialer, after int64, count *atomic.Int64) Dialer {
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		count.Add(1)
		conn, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.WriteCloser
		}{io.LimitReader(conn, after), conn}, nil
	}
}

func run(t testing.TB, s protocol.Shell, script string) (string, protocol.Exit) {
	t.Helper()
	var out bytes.Buffer
	exit, err := s.Run(t.Context(), script, &out)
	require.NoError(t, err)
	return out.String(), exit
}

func TestShellInAPlace(t *testing.T) {
	for name, newPlace := range places() {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			client := Attach(p.dial)
			shell, err := client.Open(t.Context(), ShellOptions{Dir: "/tmp", Env: [][]byte{[]byte("A=\xff")}})
			require.NoError(t, err)

			out, exit := run(t, shell, "echo $PWD; [ -t 0 ] && [ -t 1 ] && stty size; echo $A; cat; false")
			assert.Equal(t, "/tmp\n24 80\n\xff\n", out)
			assert.Equal(t, protocol.Exit{Code: 1}, exit)
			require.NoError(t, shell.Export(t.Context(), []protocol.EnvVar{{Name: "B", Value: "it's\n\xfe $A"}}))
			out, _ = run(t, shell, `printf %s "$B"; head -c3 /dev/zero`)
			assert.Equal(t, "it's\n\xfe $A\x00\x00\x00", out)
			require.ErrorContains(t, shell.Export(t.Context(), []protocol.EnvVar{{Name: "UID"}}), "UID")
			out, exit = run(t, shell, "sleep 1000 & setsid sleep 1000 & echo a; exit 3")
			assert.Equal(t, "a\n", out)
			assert.Equal(t, protocol.Exit{Code: 3, ShellEnded: true}, exit)
			_, err = shell.Run(t.Context(), "echo b", io.Discard)
			require.ErrorIs(t, err, session.ErrEnded)

			shell, err = client.Open(t.Context(), ShellOptions{})
			require.NoError(t, err)
			out, _ = run(t, shell, "echo again")
			assert.Equal(t, "again\n", out)
			require.NoError(t, shell.Close())
			require.NoError(t, shell.Close())
			killAll(t, client)
			require.NoError(t, client.Close(t.Context()))
			p.gone(t)
		})
	}
}

// killAll kills until nothing is left, as an executor's Stop would.
func killAll(t testing.TB, client *Client) {
	t.Helper()
	for {
		n, err := client.Signal(t.Context(), 9)
		require.NoError(t, err)
		if n == 0 {
			return
		}
	}
}

func TestStopInAPlace(t *testing.T) {
	for name, newPlace := range places() {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			client := Attach(p.dial)
			shell, err := client.Open(t.Context(), ShellOptions{})
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stopped := make(chan error, 1)
			go func() {
				_, err := shell.Run(ctx, "(trap '' TERM; setsid sleep 1000 & sleep 1000) & sleep 1000; echo b", io.Discard)
				stopped <- err
			}()
			require.Eventually(t, func() bool { // bash, its subshell, three sleeps
				n, err := client.Signal(t.Context(), 0)
				return err == nil && n == 5
			}, 90*time.Second, 10*time.Millisecond)
			cancel()
			require.ErrorIs(t, <-stopped, context.Canceled)
			n, err := client.Signal(t.Context(), 15)
			require.NoError(t, err)
			assert.GreaterOrEqual(t, n, 4) // one sleep may have gone with the terminal
			killAll(t, client)

			shell, err = client.Open(t.Context(), ShellOptions{})
			require.NoError(t, err)
			out, exit := run(t, shell, "echo c")
			assert.Equal(t, "c\n", out)
			assert.Equal(t, protocol.Exit{}, exit)
			require.NoError(t, client.Close(t.Context()))
		})
	}
}

func TestResumeAfterBrokenStreams(t *testing.T) {
	for name, newPlace := range places() {
		t.Run(name, func(t *testing.T) {
			var dials atomic.Int64
			client := Attach(breaking(newPlace(t).dial, 300_001, &dials))
			shell, err := client.Open(t.Context(), ShellOptions{Dir: "/tmp"})
			require.NoError(t, err)
			const script = `n=$((n+1)); for ((i = 0; i < 60000; i++)); do printf '%d %d xxxxxxxxxxxxxxx\n' $n $i; done; (exit 7)`
			for n := 1; n <= 2; n++ {
				var want strings.Builder
				for i := range 60000 {
					fmt.Fprintf(&want, "%d %d xxxxxxxxxxxxxxx\n", n, i)
				}
				out, exit := run(t, shell, script)
				assert.Equal(t, protocol.Exit{Code: 7}, exit)
				assert.True(t, out == want.String(), "got %d bytes, want %d", len(out), want.Len())
			}
			assert.Greater(t, dials.Load(), int64(8))
			require.NoError(t, client.Close(t.Context()))
		})
	}
}

func TestClientGivesUp(t *testing.T) {
	gone := fmt.Errorf("%w: removed", ErrGone)
	_, err := Attach(func(context.Context) (io.ReadWriteCloser, error) { return nil, gone }).Open(t.Context(), ShellOptions{})
	require.ErrorIs(t, err, ErrGone)

	ctx, cancel := context.WithCancel(t.Context())
	client := Attach(func(context.Context) (io.ReadWriteCloser, error) { cancel(); return nil, errors.New("not now") })
	_, err = client.Open(ctx, ShellOptions{})
	require.ErrorIs(t, err, context.Canceled)
}

func FuzzReadFrame(f *testing.F) {
	var valid bytes.Buffer
	require.NoError(f, encode(frameRun, request{Seq: 1, Script: []byte("true")}).writeTo(&valid))
	f.Add(valid.Bytes())
	f.Add([]byte{'O', 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		fr, err := readFrame(bytes.NewReader(data))
		if err != nil {
			return
		}
		var again bytes.Buffer
		require.NoError(t, fr.writeTo(&again))
		require.Equal(t, data[:fr.size()], again.Bytes())
		_ = fr.decode(&request{})
	})
}

func BenchmarkThroughput(b *testing.B) {
	benchmark(b, func(b *testing.B, s *Shell) {
		const size = 64 << 20
		b.SetBytes(size)
		for b.Loop() {
			_, err := s.Run(b.Context(), fmt.Sprintf("head -c %d /dev/zero", size), io.Discard)
			require.NoError(b, err)
		}
	})
}

func BenchmarkCommand(b *testing.B) {
	benchmark(b, func(b *testing.B, s *Shell) {
		for b.Loop() {
			_, err := s.Run(b.Context(), "true", io.Discard)
			require.NoError(b, err)
		}
	})
}

func benchmark(b *testing.B, f func(*testing.B, *Shell)) {
	for name, newPlace := range places() {
		b.Run(name, func(b *testing.B) {
			client := Attach(newPlace(b).dial)
			shell, err := client.Open(b.Context(), ShellOptions{})
			require.NoError(b, err)
			f(b, shell)
			require.NoError(b, client.Close(b.Context()))
		})
	}
}
