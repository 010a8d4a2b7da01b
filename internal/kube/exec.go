package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"
)

const (
	// dialLimit bounds the time until an exec's streams are there.
	dialLimit = 30 * time.Second
	// mostWords is how much of an exec's standard error is kept, for an error.
	mostWords = 1000
)

// Exec runs a command in a container and gives its standard input and output, once they are connected. The command's end is the end of
// what can be read; a failing one is an error there, with what it has printed on standard error. Closing ends the connection, of which the command
// learns by its standard input. When ctx ends before Exec returns, nothing is left of it; afterwards it means nothing.
func (c *Cluster) Exec(ctx context.Context, pod, container string, command ...string) (io.ReadWriteCloser, error) {
	right := Right{Verb: "get", Resource: "pods", Subresource: "exec"}
	address := c.core.Post().Namespace(c.namespace).Resource("pods").Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: container, Command: command, Stdin: true, Stdout: true, Stderr: true}, parameters).URL()
	streaming, cancel := context.WithCancel(klog.NewContext(context.WithoutCancel(ctx), logr.Discard()))
	e := &execution{cancel: cancel, connected: make(chan struct{}), done: make(chan struct{})}
	e.stdin, e.input = io.Pipe()
	e.output, e.stdout = io.Pipe()
	go func() {
		defer close(e.done)
		err := c.stream(streaming, address, remotecommand.StreamOptions{Stdin: firstRead{e.stdin, e.isConnected}, Stdout: e.stdout, Stderr: &e.words})
		e.err = e.explain(c, right, err)
		_ = e.stdout.CloseWithError(orEOF(e.err))
		_ = e.stdin.CloseWithError(orEOF(e.err))
	}()
	timeout := time.NewTimer(dialLimit)
	defer timeout.Stop()
	select {
	case <-e.connected:
		return e, nil
	case <-e.done:
		if e.err != nil {
			return nil, e.err
		}
		return nil, fmt.Errorf("cannot run a command in container %s: %w", container, io.ErrUnexpectedEOF)
	case <-timeout.C:
		_ = e.Close()
		return nil, &apiError{text: fmt.Sprintf("cannot %s: no answer within %s", right, dialLimit), kind: ErrUnreachable, cause: context.DeadlineExceeded}
	case <-ctx.Done():
		_ = e.Close()
		return nil, ctx.Err()
	}
}

// stream uses WebSockets, or SPDY where these don't come about: older API servers, and proxies, don't let them through.
func (c *Cluster) stream(ctx context.Context, address *url.URL, o remotecommand.StreamOptions) error {
	websocket, err := remotecommand.NewWebSocketExecutor(c.config, http.MethodGet, address.String())
	if err != nil {
		return err
	}
	err = websocket.StreamWithContext(ctx, o)
	var refused *httpstream.UpgradeFailureError
	switch {
	case errors.As(err, &refused) && (apierrors.IsNotFound(refused.Cause) || apierrors.IsUnauthorized(refused.Cause)):
		return refused.Cause
	case refused == nil && !httpstream.IsHTTPSProxyError(err):
		return err
	}
	spdy, spdyErr := remotecommand.NewSPDYExecutor(c.config, http.MethodPost, address)
	if spdyErr == nil {
		spdyErr = spdy.StreamWithContext(ctx, o)
	}
	// A right that is lacking for one is lacking for both, as a rule, and SPDY's errors have no kind.
	if spdyErr != nil && refused != nil && lacksRight(spdyErr) && apierrors.IsForbidden(refused.Cause) {
		return refused.Cause
	}
	return spdyErr
}

// execution is a command that runs in a container.
type execution struct {
	cancel        context.CancelFunc
	connected     chan struct{}
	connectedOnce sync.Once
	done          chan struct{} // closed when the streams have ended; err is set then
	err           error

	stdin  *io.PipeReader // what the container reads
	input  *io.PipeWriter
	output *io.PipeReader
	stdout *io.PipeWriter // what the container writes
	words  limited        // of standard error
}

func (e *execution) isConnected() { e.connectedOnce.Do(func() { close(e.connected) }) }

func (e *execution) Read(p []byte) (int, error)  { return e.output.Read(p) }
func (e *execution) Write(p []byte) (int, error) { return e.input.Write(p) }

func (e *execution) Close() error {
	e.cancel()
	_ = e.stdin.Close()
	_ = e.output.Close()
	<-e.done
	return nil
}

func (e *execution) explain(c *Cluster, r Right, err error) error {
	words := e.words.text()
	switch {
	case err == nil:
		return nil
	case words != "":
		return fmt.Errorf("%s (%w)", words, err)
	default:
		return c.explain(r, err)
	}
}

// firstRead tells of its first Read: then the streams are connected.
type firstRead struct {
	io.Reader
	tell func()
}

func (r firstRead) Read(p []byte) (int, error) {
	r.tell()
	return r.Reader.Read(p)
}

// limited keeps the beginning of what is written to it.
type limited struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(p[:min(len(p), mostWords-l.buf.Len())])
	return len(p), nil
}

func (l *limited) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(strings.Fields(strings.ToValidUTF8(l.buf.String(), "\uFFFD")), " ")
}

func orEOF(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}
