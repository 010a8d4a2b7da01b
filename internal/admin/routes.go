package admin

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/history"
	"github.com/signalman-ci/signalman/shared/eventlog"
)

// routes fills the mux. public tells which requests need no token.
func (s *Server) routes() (public func(*http.Request) bool) {
	s.mux = http.NewServeMux()
	s.mux.HandleFunc("GET /healthz", s.healthz)
	s.mux.HandleFunc("GET /readyz", s.readyz)
	s.mux.HandleFunc("GET /v1/status", s.status)
	s.mux.HandleFunc("GET /v1/jobs", s.listJobs)
	s.mux.HandleFunc("GET /v1/jobs/{id}", s.getJob)
	s.mux.HandleFunc("GET /v1/jobs/{id}/log", s.getLog)
	s.mux.HandleFunc("POST /v1/jobs/{id}/stop", s.stopJob)
	s.mux.HandleFunc("GET /v1/plugins", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, s.Supervisor.Plugins()) })
	s.mux.HandleFunc("POST /v1/upgrade", s.upgrade)
	s.mux.HandleFunc("POST /v1/reconcile", s.reconcile)
	s.mux.HandleFunc("POST /v1/reload", s.reload)
	s.mux.HandleFunc("GET /v1/config", s.config)
	s.mux.HandleFunc("POST /v1/drain", s.change(func() error { return s.Supervisor.Drain() }))
	s.mux.HandleFunc("POST /v1/resume", s.change(func() error { return s.Supervisor.Resume() }))
	open := map[string]bool{"GET /healthz": true, "GET /readyz": true}
	for _, m := range s.Mounts {
		s.mux.Handle(m.Pattern, m.Handler)
		open[m.Pattern] = m.Public
	}
	return func(r *http.Request) bool {
		_, pattern := s.mux.Handler(r)
		return open[pattern]
	}
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) { s.answerStatus(w) }

func (s *Server) answerStatus(w http.ResponseWriter) {
	st := s.Supervisor.Status()
	st.Socket, st.Listen = s.Socket, s.ListensAt()
	answer(w, http.StatusOK, st)
}

// dryRun is a parameter of a reconciliation.
const dryRun = "dry-run"

// upgrade is the answer to one.
type upgrade struct {
	Version string `json:"version"`
}

func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) {
	unbounded(w)
	version, err := s.Supervisor.Upgrade(r.Context())
	if err != nil {
		refuse(w, http.StatusConflict, "%v", err)
		return
	}
	answer(w, http.StatusAccepted, upgrade{Version: version})
}

func (s *Server) reconcile(w http.ResponseWriter, r *http.Request) {
	unbounded(w)
	answer(w, http.StatusOK, s.Supervisor.Reconcile(r.Context(), r.URL.Query().Has(dryRun)))
}

// jobList is the answer to the question for jobs.
type jobList struct {
	Jobs []history.Job `json:"jobs"`
}

const (
	// defaultJobs and maxJobs bound a list of jobs.
	defaultJobs = 50
	maxJobs     = 10000
	// maxFollowers bounds how many logs are followed at a time: each takes a watch of the operating system.
	maxFollowers = 64
	// stallLimit is how long a caller may take no more of a log.
	stallLimit = time.Minute
	// stopLimit is how long a slot may be busy with something else before it stops its job.
	stopLimit = 25 * time.Second
)

func (s *Server) listJobs(w http.ResponseWriter, r *http.Request) {
	limit := defaultJobs
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxJobs {
			refuse(w, http.StatusBadRequest, "limit: %.20q is no number from 1 to %d", text, maxJobs)
			return
		}
		limit = n
	}
	jobs, err := history.List(s.Jobs, limit)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "%v", err)
		return
	}
	answer(w, http.StatusOK, jobList{Jobs: jobs})
}

func (s *Server) getJob(w http.ResponseWriter, r *http.Request) {
	job, err := history.Get(s.Jobs, r.PathValue("id"))
	if err != nil {
		refuseJob(w, err)
		return
	}
	answer(w, http.StatusOK, job)
}

func refuseJob(w http.ResponseWriter, err error) {
	beyond, isBeyond := errors.AsType[*history.BeyondError](err)
	switch {
	case errors.Is(err, history.ErrNotFound), errors.Is(err, agent.ErrNotHeld):
		refuse(w, http.StatusNotFound, "%v", err)
	case errors.Is(err, agent.ErrOver):
		refuse(w, http.StatusConflict, "%v", err)
	case errors.Is(err, context.DeadlineExceeded):
		refuse(w, http.StatusServiceUnavailable, "%v", err)
	case isBeyond:
		refuse(w, http.StatusRequestedRangeNotSatisfiable, "%v", beyond)
	default:
		refuse(w, http.StatusInternalServerError, "%v", err)
	}
}

func (s *Server) stopJob(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), stopLimit)
	defer cancel()
	id := r.PathValue("id")
	err := s.Supervisor.StopJob(ctx, id)
	if errors.Is(err, agent.ErrNotHeld) {
		if job, known := history.Get(s.Jobs, id); known == nil && job.State == history.Ended {
			err = agent.ErrOver
		}
	}
	if err != nil {
		refuseJob(w, err)
		return
	}
	answer(w, http.StatusAccepted, struct{}{})
}

// getLog streams a job's log: the event lines as they are, or with plain as text.
func (s *Server) getLog(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	var from int64
	if text := query.Get("from"); text != "" {
		var err error
		if from, err = strconv.ParseInt(text, 10, 64); err != nil || from < 0 {
			refuse(w, http.StatusBadRequest, "from: %.20q is no event's index", text)
			return
		}
	}
	follow := isSet(query.Get("follow"))
	if follow {
		select {
		case s.followers <- struct{}{}:
			defer func() { <-s.followers }()
		default:
			refuse(w, http.StatusServiceUnavailable, "%d logs are followed already; try again later", maxFollowers)
			return
		}
	}
	log, err := history.OpenLog(s.Jobs, r.PathValue("id"), from)
	if err != nil {
		refuseJob(w, err)
		return
	}
	defer log.Close()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	stop := context.AfterFunc(s.ending, cancel)
	defer stop()
	if err := sendLog(ctx, w, log, follow, isSet(query.Get("plain"))); err != nil && ctx.Err() == nil {
		s.Logger.Debug("a log was not sent to its end", "error", err)
		cut(w)
	}
}

func sendLog(ctx context.Context, w http.ResponseWriter, log *history.Log, follow, plain bool) error {
	rc := http.NewResponseController(w)
	unbounded(w)
	text := eventlog.NewTextWriter(w)
	kind, write := "application/x-ndjson", w.Write
	if plain {
		kind, write = "text/plain; charset=utf-8", text.Write
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(http.StatusOK)
	if err := rc.Flush(); err != nil { // the caller knows at once that there is such a log
		return err
	}
	err := log.Stream(ctx, follow, func(lines []byte) error {
		_ = rc.SetWriteDeadline(time.Now().Add(stallLimit))
		if _, err := write(lines); err != nil {
			return err
		}
		return rc.Flush()
	})
	if err != nil || !plain {
		return err
	}
	return text.Close()
}

// cut ends a connection whose answer can't be given to its end: the caller sees that it isn't whole.
func cut(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = conn.Close()
	}
}

func isSet(value string) bool { return value != "" && value != "0" && value != "false" }
