package hubtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// Endpoint is one kind of request.
type Endpoint string

// The endpoints of hub and log service.
const (
	Register   Endpoint = "register"
	Sync       Endpoint = "sync"
	GetJob     Endpoint = "job"
	Refresh    Endpoint = "refresh"
	Disconnect Endpoint = "disconnect"
	Logs       Endpoint = "logs"
)

// request is what handlers see of an HTTP request.
type request struct {
	auth      string
	id        string // of the job in the path
	startFrom string
	body      []byte
}

// answer is what a handler decides. drop breaks the connection instead.
type answer struct {
	code int
	body []byte
	drop bool
}

func status(code int, text string) answer {
	return answer{code: code, body: []byte(text + "\n")}
}

func jsonAnswer(code int, v any) answer {
	body, err := json.Marshal(v)
	if err != nil {
		return status(http.StatusInternalServerError, err.Error())
	}
	return answer{code: code, body: body}
}

func (a answer) write(w http.ResponseWriter) {
	if a.drop {
		drop(w)
		return
	}
	a.writeHeader(w)
	_, _ = w.Write(a.body) // the client may be gone
}

// writeHalf sends the header of the whole answer and half of its body.
func (a answer) writeHalf(w http.ResponseWriter) {
	if a.drop {
		return
	}
	a.writeHeader(w)
	_, _ = w.Write(a.body[:len(a.body)/2])    // the client may be gone
	_ = http.NewResponseController(w).Flush() // the same
}

func (a answer) writeHeader(w http.ResponseWriter) {
	contentType := "text/plain; charset=utf-8"
	if json.Valid(a.body) {
		contentType = "application/json"
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body))) // whole once flushed
	w.WriteHeader(a.code)
}

// endpoint counts, reads, lets faults have their way, handles and answers.
func (h *Hub) endpoint(e Endpoint, handle func(request) answer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.begin(e) {
			drop(w)
			return
		}
		defer h.wg.Done()

		body, err := h.readBody(w, r)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			w.Header().Set("Connection", "close")
			status(http.StatusServiceUnavailable, "request timed out").write(w)
			return
		}
		if err != nil { // the client has gone halfway
			drop(w)
			return
		}
		req := request{
			auth:      r.Header.Get("Authorization"),
			id:        r.PathValue("id"),
			startFrom: r.URL.Query().Get("start_from"),
			body:      body,
		}
		if rule := h.takeFault(e, r, body); rule != nil {
			h.misbehave(w, r, rule, func() answer { return handle(req) })
			return
		}
		handle(req).write(w)
	})
}

// begin counts a request in, unless the hub is closed.
func (h *Hub) begin(e Endpoint) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.wg.Add(1)
	h.counts[e]++
	h.changedLocked()
	return true
}

func (h *Hub) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Now().Add(h.opts.BodyReadTimeout)); err != nil {
		return nil, err
	}
	buf := &bytes.Buffer{}
	if n := r.ContentLength; n > 0 && n < 64<<20 {
		buf.Grow(int(n) + bytes.MinRead)
	}
	if _, err := io.Copy(buf, r.Body); err != nil {
		return nil, err
	}
	return buf.Bytes(), rc.SetReadDeadline(time.Time{})
}

// bearer takes the token out of an Authorization header of the given scheme.
func bearer(header, scheme string) (string, bool) {
	token, ok := strings.CutPrefix(header, scheme+" ")
	return token, ok && token != ""
}
