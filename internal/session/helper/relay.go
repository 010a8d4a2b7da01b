//go:build linux

package helper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"
)

const (
	// After it was asked to quit, a server waits so long for its client to have read the answer and hang up.
	quitGrace = 5 * time.Second
	// At the end of its container a server gives what still runs so long between INT, TERM and KILL, and so long in all.
	lastGrace, lastLimit = time.Second, 5 * time.Second
	// A relay looks for the server's socket so often.
	firstLook, lastLook = time.Millisecond, 50 * time.Millisecond
)

// What a server and a relay ever need of threads, with some to spare.
const serverThreads, relayThreads = 16, 8

// reserveThreads makes threads that the runtime then keeps. It ends a program that needs another one where the container's limit
// of processes is reached, which is for the job to do.
func reserveThreads(n int) {
	var there, done sync.WaitGroup
	there.Add(n)
	for range n {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			there.Done()
			there.Wait()
		})
	}
	done.Wait()
}

// Listen runs a server on the socket in folder, which it makes. It returns when the client has asked the server to quit, which
// removes folder, or when ctx ends; then all that the shell has started is ended first, in a few seconds. endNow is where EndSignal
// arrives.
func Listen(ctx context.Context, folder string, endNow <-chan os.Signal) error {
	reserveThreads(serverThreads)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("cannot make the helper's folder: %w", err)
	}
	server, err := NewServer(folder)
	if err != nil {
		return err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socketPath(folder), Net: "unix"})
	if err != nil {
		return fmt.Errorf("cannot listen: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
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
	ended := make(chan struct{})
	connections.Go(func() {
		for {
			select {
			case <-endNow:
				_ = server.endAll() // who has sent the signal looks
			case <-ended:
				return
			}
		}
	})
	err = server.Run(ctx)
	close(ended)
	err = errors.Join(err, listener.Close())
	defer time.AfterFunc(quitGrace, cancel).Stop()
	connections.Wait()
	return err
}

func socketPath(folder string) string { return filepath.Join(folder, "socket") }

// Relay copies between stdin and stdout and the server of folder, for which it waits at most limit: a container's entrypoint may take its
// time before it runs the server.
func Relay(ctx context.Context, folder string, limit time.Duration, stdin io.Reader, stdout io.Writer) error {
	reserveThreads(relayThreads)
	conn, err := connect(ctx, folder, limit)
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

func connect(ctx context.Context, folder string, limit time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socketPath(folder))
		if err == nil {
			return conn, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fmt.Errorf("what commands are run by has not come up within %s (%w): an entrypoint must end by running "+
				"what it is given, like exec \"$@\"; else set another one", limit, err)
		}
	}
}
