package hub

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/signalman-ci/signalman/internal/connection"
)

// Op names a call, worded to follow "cannot".
type Op string

// The calls of a [Client].
const (
	OpRegister        Op = "register with the hub"
	OpSync            Op = "sync with the hub"
	OpGetJob          Op = "get the job from the hub"
	OpRefreshLogToken Op = "refresh the log token"
	OpDisconnect      Op = "disconnect from the hub"
	OpPushLog         Op = "push the log"
)

// ErrTooLarge is wrapped by the [*AnswerError] for an answer above the size limit.
var ErrTooLarge = errors.New("the answer is too large")

// RequestError is a request without an answer: it couldn't be made, timed out,
// was cancelled, or the connection broke.
type RequestError struct {
	Op Op
	// Sent is false only if nothing of the request can have left.
	Sent bool
	Err  error
	// Hint says what to do, if that is known.
	Hint string
}

func (e *RequestError) Error() string {
	return withHint(fmt.Sprintf("cannot %s: %v", e.Op, e.Err), e.Hint)
}

func withHint(msg, hint string) string {
	if hint == "" {
		return msg
	}
	return msg + "; " + hint
}

// Unwrap returns the cause, such as [context.DeadlineExceeded].
func (e *RequestError) Unwrap() error { return e.Err }

// StatusError is an answer with a status outside 200 to 299. Redirects are not
// followed and end up here as well.
type StatusError struct {
	Op   Op
	Code int
	// Body is the first line of the answer, at most 200 bytes, printable.
	Body string
	// Hint says what to do, if that is known.
	Hint string
}

func (e *StatusError) Error() string {
	msg := fmt.Sprintf("cannot %s: the answer is %d", e.Op, e.Code)
	if text := http.StatusText(e.Code); text != "" {
		msg += " " + text
	}
	if e.Body != "" {
		msg += fmt.Sprintf(" (%s)", e.Body)
	}
	return withHint(msg, e.Hint)
}

// statusHint tells what to do about answers that are none of the hub's own.
func statusHint(op Op, code int, body []byte) string {
	switch {
	case code == http.StatusBadRequest && connection.SaysTLS(body):
		return connection.PlainToTLS(op.peer())
	case code == http.StatusProxyAuthRequired:
		return connection.WantsPassword
	}
	return ""
}

// peer is who a call goes to.
func (o Op) peer() string {
	if o == OpPushLog {
		return "the log service"
	}
	return "the hub"
}

// AnswerError is a successful status with a body that broke off, is too large
// or isn't understood. The service has carried the request out.
type AnswerError struct {
	Op  Op
	Err error
}

func (e *AnswerError) Error() string {
	return fmt.Sprintf("cannot %s: the answer isn't understood: %v", e.Op, e.Err)
}

// Unwrap returns the cause.
func (e *AnswerError) Unwrap() error { return e.Err }

// Ambiguous tells whether the failed request may still be carried out by the
// service, even after the call has returned: a connection was there to send it
// on and no answer came (time-out, cancellation, broken connection), or
// something on the way gave up on it (502, 503, 504).
//
// It is false where the request surely never left (refused connection, failed
// dial, DNS or TLS) or is over (any other answer), for nil, and for errors that
// don't come from a [Client].
//
// The line is drawn where the transport has got a connection, not where it has
// written the request: net/http reports the latter from another goroutine,
// possibly after the call has returned. So "true" errs on the safe side.
func Ambiguous(err error) bool {
	if re, ok := errors.AsType[*RequestError](err); ok {
		return re.Sent
	}
	return HasStatus(err, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout)
}

// HasStatus tells whether err is a [*StatusError] with one of the codes.
func HasStatus(err error, codes ...int) bool {
	se, ok := errors.AsType[*StatusError](err)
	if !ok {
		return false
	}
	for _, code := range codes {
		if se.Code == code {
			return true
		}
	}
	return false
}

// Unauthorized tells whether the answer was 401. From [Client.PushLog] it means
// that the log token has expired and wants a refresh.
func Unauthorized(err error) bool { return HasStatus(err, http.StatusUnauthorized) }

// NotFound tells whether the answer was 404. An ingress answers 404 as well, so
// one of them doesn't prove that the hub has forgotten the agent.
func NotFound(err error) bool { return HasStatus(err, http.StatusNotFound) }

// LogFull tells whether the log service has no more space for this log (422
// from [Client.PushLog]): nothing more is to be sent.
func LogFull(err error) bool {
	se, ok := errors.AsType[*StatusError](err)
	return ok && se.Op == OpPushLog && se.Code == http.StatusUnprocessableEntity
}

const maxErrorBody = 200

// firstLine makes the start of an answer fit for an error message.
func firstLine(body []byte, secret string) string {
	text := string(body)
	if secret != "" {
		text = strings.ReplaceAll(text, secret, "[token]")
	}
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if len(line) > maxErrorBody {
		line = line[:maxErrorBody]
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return -1
		}
		return r
	}, line))
}
