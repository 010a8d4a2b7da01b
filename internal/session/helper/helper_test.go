//go:build linux

package helper

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/signalman-ci/signalman/internal/session"
	"github.com/signalman-ci/signalman/internal/testimage"
	"github.com/signalman-ci/signalman/shared/jobshell"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// place is somewhere the helper runs: a process on this host, or a container.
type place struct {
	dial Dialer
	// signal sends the server a signal.
	signal func(t testing.TB, name string)
	gone   func(t testing.TB) // checks that the server's folder is removed
}

func places() map[string]func(testing.TB) place {
	return map[string]func(testing.TB) place{"host": onHost, "container": inContainer}
}

func onHost(t testing.TB) place {
	binary := testimage.HelperFile(t)
	folder := filepath.Join(t.TempDir(), "f")
	server := exec.Command(binary, ServeMode, folder)
	server.Env = append(os.Environ(), "HOME="+t.TempDir()) // not what this user's .bashrc does, and leaves when it is killed
	require.NoError(t, server.Start())
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	t.Cleanup(func() {
		_ = server.Process.Kill()
		<-ended
		close(ended)
	})
	return place{
		dial: dialer(binary, RelayMode, folder),
		signal: func(t testing.TB, name string) {
			require.NoError(t, exec.Command("kill", "-"+name, strconv.Itoa(server.Process.Pid)).Run())
		},
		gone: func(t testing.TB) {
			err := <-ended
			ended <- err
			require.NoError(t, err)
			assert.NoDirExists(t, folder)
		},
	}
}

func inContainer(t testing.TB) place {
	image := testimage.Build(t, testimage.Engine(t), true)
	container := strings.TrimSpace(docker(t, nil, "create", "--network=none", image, "/helper", ServeMode, "/tmp/signalman"))
	t.Cleanup(func() { _ = exec.Command("docker", "rm", "-f", container).Run() })
	docker(t, nil, "cp", testimage.HelperFile(t), container+":/helper")
	docker(t, nil, "start", container)
	return place{
		dial:   dialer("docker", "exec", "-i", container, "/helper", RelayMode, "/tmp/signalman"),
		signal: func(t testing.TB, name string) { docker(t, nil, "kill", "--signal="+name, container) },
		gone:   func(t testing.TB) { assert.Equal(t, "0", strings.TrimSpace(docker(t, nil, "wait", container))) },
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

func run(t testing.TB, s jobshell.Shell, script string) (string, jobshell.Exit) {
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
			client := Attach(p.dial, ClientOptions{})
			shell, err := client.Open(t.Context(), ShellOptions{Dir: "/tmp", Env: [][]byte{[]byte("A=\xff")}})
			require.NoError(t, err)

			out, exit := run(t, shell, "echo $PWD; [ -t 0 ] && [ -t 1 ] && stty size; echo $A; cat; false")
			assert.Equal(t, "/tmp\n24 80\n\xff\n", out)
			assert.Equal(t, jobshell.Exit{Code: 1}, exit)
			require.NoError(t, shell.Export(t.Context(), []jobshell.EnvVar{{Name: "B", Value: "it's\n\xfe $A"}}))
			out, _ = run(t, shell, `printf %s "$B"; head -c3 /dev/zero`)
			assert.Equal(t, "it's\n\xfe $A\x00\x00\x00", out)
			require.ErrorContains(t, shell.Export(t.Context(), []jobshell.EnvVar{{Name: "UID"}}), "UID")
			out, exit = run(t, shell, "sleep 1000 & setsid sleep 1000 & echo a; exit 3")
			assert.Equal(t, "a\n", out)
			assert.Equal(t, jobshell.Exit{Code: 3, ShellEnded: true}, exit)
			_, err = shell.Run(t.Context(), "echo b", io.Discard)
			require.ErrorIs(t, err, session.ErrEnded)

			shell, err = client.Open(t.Context(), ShellOptions{})
			require.NoError(t, err)
			out, _ = run(t, shell, "echo again")
			assert.Equal(t, "again\n", out)
			require.NoError(t, shell.Close())
			require.NoError(t, shell.Close())
			require.NoError(t, client.End(t.Context(), time.Millisecond))
			require.NoError(t, client.Close(t.Context()))
			p.gone(t)
		})
	}
}

// watched tells when a text was written to it.
type watched struct {
	text string
	seen chan struct{}
	all  strings.Builder
}

func (w *watched) Write(p []byte) (int, error) {
	before := strings.Contains(w.all.String(), w.text)
	w.all.Write(p)
	if !before && strings.Contains(w.all.String(), w.text) {
		close(w.seen)
	}
	return len(p), nil
}

func TestStopInAPlace(t *testing.T) {
	for name, newPlace := range places() {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			client := Attach(p.dial, ClientOptions{})
			shell, err := client.Open(t.Context(), ShellOptions{})
			require.NoError(t, err)
			out := &watched{text: "ready", seen: make(chan struct{})}
			ended := make(chan error, 1)
			go func() {
				exit, err := shell.Run(t.Context(), "(trap '' TERM INT; setsid sleep 1000 & sleep 1000) & (trap '' INT; setsid sleep 1000 >/dev/null 2>&1 &); echo ready; sleep 1000; echo b", out)
				assert.True(t, exit.ShellEnded)
				ended <- err
			}()
			<-out.seen
			require.NoError(t, client.End(t.Context(), 50*time.Millisecond))
			require.NoError(t, <-ended)
			assert.Equal(t, "ready\n", out.all.String())
			require.NoError(t, client.End(t.Context(), time.Hour), "nothing is left, so nothing is waited for")

			shell, err = client.Open(t.Context(), ShellOptions{})
			require.NoError(t, err)
			printed, exit := run(t, shell, "echo c")
			assert.Equal(t, "c\n", printed)
			assert.Equal(t, jobshell.Exit{}, exit)
			require.NoError(t, client.Close(t.Context()))
			p.gone(t)
		})
	}
}

// EndSignal ends what runs where no relay can be started.
func TestEndSignal(t *testing.T) {
	for name, at := range places() {
		t.Run(name, func(t *testing.T) {
			p := at(t)
			c := Attach(p.dial, ClientOptions{})
			defer c.HangUp()
			sh, err := c.Open(t.Context(), ShellOptions{})
			require.NoError(t, err)
			out := &watched{text: "ready", seen: make(chan struct{})}
			ended := make(chan jobshell.Exit, 1)
			go func() {
				exit, err := sh.Run(context.Background(), "trap '' INT TERM; (setsid sleep 1000 &); echo ready; sleep 1000; sleep 1000", out)
				assert.NoError(t, err)
				ended <- exit
			}()
			<-out.seen
			p.signal(t, EndSignal)
			assert.True(t, (<-ended).ShellEnded)
			require.NoError(t, c.End(t.Context(), time.Hour), "nothing is left, so nothing is waited for")
			sh, err = c.Open(t.Context(), ShellOptions{})
			require.NoError(t, err)
			text, _ := run(t, sh, "echo again")
			assert.Equal(t, "again\n", text)
		})
	}
}

func TestRelayWithoutServer(t *testing.T) {
	err := Relay(t.Context(), t.TempDir(), time.Millisecond, strings.NewReader(""), io.Discard)
	require.ErrorContains(t, err, "has not come up within 1ms (dial unix ")
	require.ErrorContains(t, err, `an entrypoint must end by running what it is given, like exec "$@"`)
}

// What an engine says in place of the relay's output is in the error.
func TestStreamOfSomethingElse(t *testing.T) {
	_, err := readFrame(bufio.NewReader(strings.NewReader("OCI runtime exec failed: no room\r\n")))
	require.EqualError(t, err, `this is no stream of the helper's: "OCI runtime exec failed: no room"`)
	_, err = readFrame(strings.NewReader("OCI runtime exec failed: no room"))
	require.EqualError(t, err, `this is no stream of the helper's: "OCI r"`)
}

func TestPut(t *testing.T) {
	client := Attach(onHost(t).dial, ClientOptions{})
	dir := t.TempDir()
	content := bytes.Repeat([]byte("\x00\xff\n"), 1<<20)
	require.NoError(t, client.Put(t.Context(), File{Path: dir + "/a/b c", Mode: 0o750, Content: content}))
	got, err := os.ReadFile(dir + "/a/b c")
	require.NoError(t, err)
	assert.True(t, bytes.Equal(content, got))
	info, err := os.Stat(dir + "/a/b c")
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o750), info.Mode())
	require.ErrorContains(t, client.Put(t.Context(), File{Path: dir + "/a/b c/d"}), "not a directory")
	entries, err := os.ReadDir(dir + "/a")
	require.NoError(t, err)
	assert.Len(t, entries, 1)
	require.NoError(t, client.Close(t.Context()))
}

// A command whose output nobody takes waits, rather than fill memory, and goes on when somebody does.
func TestUnreadOutput(t *testing.T) {
	place := onHost(t)
	client := Attach(place.dial, ClientOptions{})
	shell, err := client.Open(t.Context(), ShellOptions{})
	require.NoError(t, err)
	var size atomic.Int64
	const total = 8 * maxUnread
	exit, err := shell.Run(t.Context(), fmt.Sprintf("head -c %d /dev/zero", total), writerFunc(func(p []byte) (int, error) {
		size.Add(int64(len(p)))
		return len(p), nil
	}))
	require.NoError(t, err)
	assert.Zero(t, exit.Code)
	assert.EqualValues(t, total, size.Load())
	require.NoError(t, client.Close(t.Context()))

	j := newJournal()
	done := make(chan error, 1)
	go func() {
		_, err := j.Write(make([]byte, 2*maxUnread))
		done <- err
	}()
	assert.Eventually(t, func() bool {
		j.mu.Lock()
		defer j.mu.Unlock()
		return len(j.unread) > maxUnread-2*outputChunk
	}, time.Minute, time.Millisecond)
	select {
	case <-done:
		t.Fatal("it does not wait")
	default:
	}
	j.close()
	require.ErrorIs(t, <-done, errClosed)
	assert.LessOrEqual(t, len(j.unread), maxUnread)
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestResumeAfterBrokenStreams(t *testing.T) {
	for name, newPlace := range places() {
		t.Run(name, func(t *testing.T) {
			var dials atomic.Int64
			client := Attach(breaking(newPlace(t).dial, 300_001, &dials), ClientOptions{})
			shell, err := client.Open(t.Context(), ShellOptions{Dir: "/tmp"})
			require.NoError(t, err)
			const script = `n=$((n+1)); for ((i = 0; i < 60000; i++)); do printf '%d %d xxxxxxxxxxxxxxx\n' $n $i; done; (exit 7)`
			for n := 1; n <= 2; n++ {
				var want strings.Builder
				for i := range 60000 {
					fmt.Fprintf(&want, "%d %d xxxxxxxxxxxxxxx\n", n, i)
				}
				out, exit := run(t, shell, script)
				assert.Equal(t, jobshell.Exit{Code: 7}, exit)
				assert.True(t, out == want.String(), "got %d bytes, want %d", len(out), want.Len())
			}
			assert.Greater(t, dials.Load(), int64(8))
			require.NoError(t, client.Close(t.Context()))
		})
	}
}

func TestClientGivesUp(t *testing.T) {
	gone := fmt.Errorf("%w: removed", ErrGone)
	_, err := Attach(func(context.Context) (io.ReadWriteCloser, error) { return nil, gone }, ClientOptions{}).Open(t.Context(), ShellOptions{})
	require.ErrorIs(t, err, ErrGone)

	ctx, cancel := context.WithCancel(t.Context())
	client := Attach(func(context.Context) (io.ReadWriteCloser, error) { cancel(); return nil, errors.New("not now") }, ClientOptions{})
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
			client := Attach(newPlace(b).dial, ClientOptions{})
			shell, err := client.Open(b.Context(), ShellOptions{})
			require.NoError(b, err)
			f(b, shell)
			require.NoError(b, client.Close(b.Context()))
		})
	}
}
