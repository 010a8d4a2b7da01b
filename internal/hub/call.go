package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/signalman-ci/signalman/internal/connection"
)

// maxAnswer bounds the answers of all calls but GetJob, in bytes.
const maxAnswer = 1 << 20

// call is one request, before it is made.
type call struct {
	op          Op
	method      string
	url         string
	scheme      string // of the Authorization header
	token       string
	contentType string
	body        []byte
	timeout     time.Duration
	limit       int64 // of the answer's body, in bytes
}

// do makes the request and returns the body of a 2xx answer.
func (c *Client) do(ctx context.Context, call call) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, call.timeout)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return nil, &RequestError{Op: call.op, Err: err}
	}

	// GotConn is called before the first byte is written.
	var sent atomic.Bool
	sent.Store(!c.traced)
	traceCtx := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) },
	})
	req, err := http.NewRequestWithContext(traceCtx, call.method, call.url, bytes.NewReader(call.body))
	if err != nil {
		return nil, &RequestError{Op: call.op, Err: withoutURL(err)}
	}
	req.Header.Set("User-Agent", c.userAgent)
	req.Header.Set("Authorization", call.scheme+" "+call.token)
	if call.contentType != "" {
		req.Header.Set("Content-Type", call.contentType)
	}

	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unanswered(ctx, call.op, sent.Load(), err)
	}
	defer resp.Body.Close()

	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		// What can't be read of the explanation isn't missed.
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return nil, &StatusError{
			Op: call.op, Code: resp.StatusCode, Body: firstLine(body, call.token), Hint: statusHint(call.op, resp.StatusCode, body),
		}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, call.limit+1))
	if err != nil {
		return nil, &AnswerError{Op: call.op, Err: fmt.Errorf("it broke off: %w", withoutURL(err))}
	}
	if int64(len(body)) > call.limit {
		return nil, &AnswerError{Op: call.op, Err: fmt.Errorf("%w (more than %d bytes)", ErrTooLarge, call.limit)}
	}
	return body, nil
}

// unanswered makes the error of a request without an answer.
func (c *Client) unanswered(ctx context.Context, op Op, sent bool, err error) error {
	err = withoutURL(err)
	answer := &RequestError{Op: op, Sent: sent, Err: err}
	late := errors.Is(err, context.DeadlineExceeded)
	if late {
		answer.Err = fmt.Errorf("no answer in time: %w", err)
	}
	// Of an answer that is late nothing is known but that; what the caller has ended needs no advice.
	if ctx.Err() == nil || late && !sent {
		answer.Hint = connection.Explain(err, op.peer())
	}
	return answer
}

// hubCall makes a request to the hub with in, if any, as JSON.
func (c *Client) hubCall(ctx context.Context, call call, path string, in any) ([]byte, error) {
	call.url = c.base + path
	call.scheme = "Token"
	if call.limit == 0 {
		call.limit = maxAnswer
	}
	if in != nil {
		body, err := json.Marshal(in)
		if err != nil {
			return nil, &RequestError{Op: call.op, Err: err}
		}
		call.body = body
		call.contentType = "application/json"
	}
	return c.do(ctx, call)
}

// withoutURL takes the URL out of an error of net/http: the log's URL is the
// service's affair and may hold what shouldn't be shown.
func withoutURL(err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		return ue.Err
	}
	return err
}
