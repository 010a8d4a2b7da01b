package hubtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Event is a decoded event of a log. Fields an event doesn't have are zero.
type Event struct {
	Event      string `json:"event"`
	Timestamp  int64  `json:"timestamp"` // Unix seconds, as are the other times
	Directive  string `json:"directive"`
	Output     string `json:"output"`
	ExitCode   *int   `json:"exit_code"`
	StartedAt  int64  `json:"started_at"`
	FinishedAt int64  `json:"finished_at"`
	Result     string `json:"result"`
}

// TrimmedOutput is the output of the event that the log service adds to a log
// that has become full.
const TrimmedOutput = "The log is full and was trimmed here.\n"

// Log returns a job's log, a line an event. It is empty for an unknown job.
func (h *Hub) Log(id string) []byte {
	l := h.logOf(id)
	return l.bytes()
}

// LogLines returns the lines of a job's log. They must not be changed.
func (h *Hub) LogLines(id string) [][]byte {
	return h.logOf(id).lines(0)
}

// Events decodes a job's log.
func (h *Hub) Events(id string) ([]Event, error) {
	lines := h.LogLines(id)
	events := make([]Event, len(lines))
	for i, line := range lines {
		if err := json.Unmarshal(line, &events[i]); err != nil {
			return nil, fmt.Errorf("cannot read event %d of the log: %w", i, err)
		}
	}
	return events, nil
}

// Output is all that the commands of a job have printed, as far as its log is here.
func (h *Hub) Output(id string) (string, error) {
	events, err := h.Events(id)
	var b strings.Builder
	for _, e := range events {
		b.WriteString(e.Output)
	}
	return b.String(), err
}

// ExpireLogTokens makes all tokens of a job's log invalid: pushes get 401 until
// the agent refreshes.
func (h *Hub) ExpireLogTokens(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if j := h.jobs[id]; j != nil {
		clear(j.tokens)
	}
}

func (h *Hub) logOf(id string) *eventLog {
	h.mu.Lock()
	defer h.mu.Unlock()
	j := h.jobs[id]
	if j == nil {
		return &eventLog{}
	}
	l := j.log.clone()
	return &l
}

func (h *Hub) pushLog(req request) answer {
	b := newBatch(req.body)
	h.mu.Lock()
	defer h.mu.Unlock()
	j := h.jobs[req.id]
	if j == nil {
		return status(http.StatusNotFound, "no such log")
	}
	post := LogPost{Seq: h.nextSeq(), At: h.now(), Events: len(b.ends), Bytes: len(b.data), Held: j.log.events}
	out := h.appendLocked(j, req, b, &post)
	post.Status = out.code
	j.posts = keepLast(append(j.posts, post))
	h.changedLocked()
	return out
}

func (h *Hub) appendLocked(j *job, req request, b batch, post *LogPost) answer {
	if token, ok := bearer(req.auth, "Bearer"); !ok || !j.tokens[token] {
		return status(http.StatusUnauthorized, "the token is missing, wrong or expired")
	}
	from, err := strconv.Atoi(req.startFrom)
	if err != nil || from < 0 {
		return status(http.StatusBadRequest, "start_from isn't understood")
	}
	post.StartFrom = from
	if len(b.ends) > h.opts.MaxEvents {
		return status(http.StatusRequestEntityTooLarge, "too many events")
	}
	if from == 0 {
		j.log = eventLog{}
	}
	if h.opts.MaxLogSize > 0 && j.log.size >= h.opts.MaxLogSize {
		if !j.log.trimmed {
			j.log.append(trimmedBatch(h.now()))
			j.log.trimmed = true
		}
		return status(http.StatusUnprocessableEntity, "no more space")
	}
	j.log.cut(from)
	j.log.append(b)
	if j.FirstLogAt.IsZero() && j.log.events > 0 {
		j.FirstLogAt = h.now()
	}
	return status(http.StatusOK, "ok")
}

func trimmedBatch(now time.Time) batch {
	return newBatch(fmt.Appendf(nil, `{"event":"cmd_output","timestamp":%d,"output":%q}`, now.Unix(), TrimmedOutput))
}
