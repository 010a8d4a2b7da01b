//go:build linux

package helper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// After it was asked to quit, a server waits so long for its client to have read the answer and hang up.
const quitGrace = 5 * time.Second

// Listen runs a server on the socket in folder, which it makes. When it takes connections it writes a byte to ready.
// It returns when the client has asked the server to quit, which removes folder, or when ctx ends.
func Listen(ctx context.Context, folder string, ready io.WriteCloser) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("cannot make the helper's folder: %w", err)
	}
	server, err := NewServer(folder)
	if err != nil {
		return err
	}
	_ = os.Remove(socketPath(folder)) // of a server that died
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socketPath(folder), Net: "unix"})
	if err != nil {
		return errors.Join(fmt.Errorf("cannot listen: %w", err), server.Close())
	}
	listener.SetUnlinkOnClose(false) // it may be another server's by then
	_, err = ready.Write([]byte{1})
	if err = errors.Join(err, ready.Close()); err != nil {
		return errors.Join(fmt.Errorf("cannot say that the helper is ready: %w", err), listener.Close())
	}

	ctx, cancel := context.WithCancel(ctx)
	var connections sync.WaitGroup
	connections.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Go(func() { _ = server.Serve(ctx, conn) }) // the client sees that it ended, and tries again
		}
	})
	err = server.Run(ctx)
	err = errors.Join(err, listener.Close())
	defer time.AfterFunc(quitGrace, cancel).Stop()
	connections.Wait()
	cancel()
	return errors.Join(err, server.Close())
}

func socketPath(folder string) string { return filepath.Join(folder, "socket") }

// Relay copies between stdin and stdout and the server of folder, which it starts if there is none, as a process of its
// own that outlives this one: serve is its command line, which has to call Listen with its standard output as ready.
func Relay(folder string, serve []string, stdin io.Reader, stdout io.Writer) error {
	conn, err := connect(folder, serve)
	if err != nil {
		return err
	}
	defer conn.Close()
	ended := make(chan error, 2)
	go func() {
		_, err := io.Copy(conn, stdin)
		ended <- err
	}()
	go func() {
		_, err := io.Copy(stdout, conn)
		ended <- err
	}()
	return <-ended // the other one ends with the process
}

// connect holds a lock, so that of two relays one starts the server.
func connect(folder string, serve []string) (net.Conn, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the helper's folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the helper's folder: %w", err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("cannot lock the helper's folder: %w", err)
	}
	if conn, err := net.Dial("unix", socketPath(folder)); err == nil {
		return conn, nil
	}
	if err := startServer(serve); err != nil {
		return nil, fmt.Errorf("cannot start the helper's server: %w", err)
	}
	return net.Dial("unix", socketPath(folder))
}

func startServer(serve []string) error {
	ready, readyWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd := exec.Command(serve[0], serve[1:]...)
	cmd.Stdout = readyWrite // nothing of it holds the exec's own streams
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	if err = errors.Join(err, readyWrite.Close()); err != nil {
		return err
	}
	if _, err := io.ReadFull(ready, make([]byte, 1)); err != nil {
		return fmt.Errorf("it ended before it was ready: %w", errors.Join(err, cmd.Wait()))
	}
	return nil
}
