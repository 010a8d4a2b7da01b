//go:build unix

package protocol

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/signalman-ci/signalman/shared/protocol/internal/executorv1"
)

// served is a worker process that runs this test's binary, and a connection to it.
type served struct {
	t        *testing.T
	cmd      *exec.Cmd
	client   *Client
	settings *Settings
	// leave takes all from the worker that it has of its host but its standard error, which is a file.
	leave  func()
	stderr string
}

func serve(t *testing.T) *served {
	t.Helper()
	dir, err := os.MkdirTemp("", "w") // a socket's path must be short
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	s := &served{t: t, stderr: filepath.Join(dir, "stderr"), settings: &Settings{LogPath: filepath.Join(dir, "events.jsonl"), TempDir: dir}}
	stderr, err := os.Create(s.stderr)
	require.NoError(t, err)
	defer stderr.Close()
	s.cmd = exec.Command(os.Args[0])
	s.cmd.Env = append(os.Environ(), Handshake.MagicCookieKey+"="+Handshake.MagicCookieValue,
		fmt.Sprintf("PLUGIN_PROTOCOL_VERSIONS=%d", Version), "PLUGIN_UNIX_SOCKET_DIR="+dir)
	s.cmd.Stderr = stderr
	stdout, err := s.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.cmd.Start())
	t.Cleanup(func() { _, _ = s.cmd.Process.Kill(), s.cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	conn, err := grpc.NewClient("unix:"+strings.Split(line, "|")[3], grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	s.client = &Client{rpc: pb.NewExecutorClient(conn)}
	s.leave = func() {
		require.NoError(t, conn.Close())
		require.NoError(t, stdout.Close())
	}
	return s
}

// end waits for the end of the worker, which ends by itself.
func (s *served) end() {
	s.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- s.cmd.Wait() }()
	select {
	case err := <-ended:
		require.NoError(s.t, err)
	case <-time.After(patience):
		_ = s.cmd.Process.Kill()
		<-ended
		require.Fail(s.t, "the worker doesn't end")
	}
}

// What a worker prints holds it up at no time: there may be no supervisor to read it.
func TestPrintingWithoutASupervisor(t *testing.T) {
	s := serve(t)
	gate := filepath.Join(s.settings.TempDir, "gate")
	require.NoError(t, syscall.Mkfifo(gate, 0o600))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, s.client.Start(ctx, &Job{ID: "job", Commands: commands(printScript, "after")}, s.settings))
	s.leave()
	require.Eventually(t, func() bool {
		opened, err := os.OpenFile(gate, os.O_WRONLY|syscall.O_NONBLOCK, 0) // it fails until the script reads
		return err == nil && opened.Close() == nil
	}, patience, 5*time.Millisecond)
	s.end()

	log := (&worker{t: t, settings: s.settings}).log()
	assert.Contains(t, log, "< print: 0\n> after\n< after: 0\n")
	assert.Contains(t, log, "job passed\n")
	raw, err := os.ReadFile(s.stderr)
	require.NoError(t, err)
	assert.Equal(t, 2*printed, bytes.Count(raw, []byte("x")), "it is all in the worker's log")
}
