package metrics

import (
	"context"
	"errors"
	"net"
	"net/http"

	"github.com/signalman-ci/signalman/internal/hub"
)

// kind is what came of a request to the hub or its log service, as a label.
type kind string

const (
	ok           kind = "ok"
	unauthorized kind = "unauthorized"
	notFound     kind = "not_found"
	tooLarge     kind = "too_large"
	full         kind = "full" // the log service takes no more
	refused      kind = "refused"
	serverError  kind = "server_error"
	timedOut     kind = "timeout"
	unreachable  kind = "unreachable"
	badAnswer    kind = "bad_answer"
	cancelled    kind = "cancelled"
)

// kinds are all failures.
var kinds = []kind{unauthorized, notFound, tooLarge, full, refused, serverError, timedOut, unreachable, badAnswer, cancelled}

// kindOf puts an error of hub.Client into words.
func kindOf(err error) kind {
	if err == nil {
		return ok
	}
	if errors.Is(err, context.Canceled) {
		return cancelled
	}
	if hub.LogFull(err) {
		return full
	}
	if status, is := errors.AsType[*hub.StatusError](err); is {
		return kindOfStatus(status.Code)
	}
	if _, is := errors.AsType[*hub.AnswerError](err); is {
		return badAnswer
	}
	timeout, is := errors.AsType[net.Error](err)
	if errors.Is(err, context.DeadlineExceeded) || is && timeout.Timeout() {
		return timedOut
	}
	return unreachable
}

func kindOfStatus(code int) kind {
	switch {
	case code == http.StatusUnauthorized:
		return unauthorized
	case code == http.StatusNotFound:
		return notFound
	case code == http.StatusRequestEntityTooLarge:
		return tooLarge
	case code >= http.StatusInternalServerError:
		return serverError
	default:
		return refused
	}
}
