package serve

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/signalman-ci/signalman/internal/request"
)

// States, in the words of the hub.
const (
	waitingForJob = "waiting-for-job"
	jobReceived   = "job-received"
)

// archivator is who reads a log for good, by its header.
const (
	clientHeader = "X-Client-Name"
	archivator   = "archivator"
)

// routes are the whole of the API.
func (s *Server) routes() http.Handler {
	private := http.NewServeMux()
	private.HandleFunc("GET /status", s.getStatus)
	private.HandleFunc("POST /jobs", s.postJob)
	private.HandleFunc("GET /jobs/{id}/log", s.getLog)
	private.HandleFunc("POST /stop", s.postStop)
	private.HandleFunc("POST /jobs/terminate", s.postStop)
	private.HandleFunc("GET /agent_logs", s.getAgentLogs)
	all := http.NewServeMux()
	all.HandleFunc("GET /is_alive", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, "yes") // the caller has gone
	})
	all.Handle("/", authorized([]byte(s.Secret), private))
	return all
}

type message struct {
	Message string `json:"message"`
}

func refuse(w http.ResponseWriter, status int, text string) { answer(w, status, message{text}) }

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the caller has gone
}

func (s *Server) getStatus(w http.ResponseWriter, _ *http.Request) {
	state := waitingForJob
	if s.held() != nil {
		state = jobReceived
	}
	answer(w, http.StatusOK, struct {
		State   string `json:"state"`
		Version string `json:"version"`
	}{state, s.Version})
}

func (s *Server) postJob(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.MaxRequest))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			refuse(w, http.StatusRequestEntityTooLarge, "the job request is too large")
			return
		}
		refuse(w, http.StatusBadRequest, "the job request can't be read")
		return
	}
	id := request.JobID(raw)
	if s.knows(id) { // whatever it says this time
		answer(w, http.StatusOK, message{"ok"})
		return
	}
	if err := s.accept(r.Context(), id, raw); err != nil {
		refuse(w, statusOf(err), err.Error())
		return
	}
	answer(w, http.StatusOK, message{"ok"})
}

func statusOf(err error) int {
	if _, ok := errors.AsType[*unfitError](err); ok {
		return http.StatusUnprocessableEntity
	}
	return http.StatusServiceUnavailable
}

func (s *Server) getLog(w http.ResponseWriter, r *http.Request) {
	job := s.last()
	if job == nil {
		refuse(w, http.StatusNotFound, "there has been no job yet")
		return
	}
	if r.PathValue("id") != job.folder.ID() {
		refuse(w, http.StatusForbidden, "it isn't the job that is here")
		return
	}
	var from int64
	if text := r.URL.Query().Get("start_from"); text != "" {
		var err error
		if from, err = strconv.ParseInt(text, 10, 64); err != nil || from < 0 {
			refuse(w, http.StatusBadRequest, "start_from is no event's index")
			return
		}
	}
	archiving := r.Header.Get(clientHeader) == archivator
	if archiving {
		job.awaitWhole(r.Context())
	}
	if err := job.sendLog(r.Context(), w, from); err != nil {
		s.Logger.Warn("a log was not sent to its end", "job", job.folder.ID(), "error", err)
		cut(w)
		return
	}
	if archiving {
		s.noteArchived(job)
	}
}

// postStop stops the job; without one there is nothing to be done.
func (s *Server) postStop(w http.ResponseWriter, _ *http.Request) {
	if job := s.held(); job != nil {
		if err := job.requestStop(""); err != nil {
			refuse(w, http.StatusServiceUnavailable, "the stop can't be noted; try again")
			s.Logger.Error("cannot note that the job is to stop", "error", err)
			return
		}
		s.Logger.Info("the job is stopped, as it was asked for", "job", job.folder.ID())
	}
	answer(w, http.StatusOK, message{"ok"})
}

func (s *Server) getAgentLogs(w http.ResponseWriter, _ *http.Request) {
	file, err := os.Open(s.AgentLog)
	if err != nil {
		refuse(w, http.StatusNotFound, "there is no agent log")
		return
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		refuse(w, http.StatusNotFound, "there is no agent log")
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if _, err := io.Copy(&patient{w: w}, io.LimitReader(file, info.Size())); err != nil {
		cut(w)
	}
}

// patient gives the caller of a long answer time as long as it takes some of it.
type patient struct{ w http.ResponseWriter }

func (p *patient) Write(b []byte) (int, error) {
	_ = http.NewResponseController(p.w).SetWriteDeadline(time.Now().Add(stallLimit)) // a writer without limits has none to set
	return p.w.Write(b)
}

// cut ends a connection whose answer can't be given to its end: the caller sees that it isn't whole.
func cut(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = conn.Close()
	}
}
