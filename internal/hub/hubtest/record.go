package hubtest

import (
	"slices"
	"time"

	"github.com/signalman-ci/signalman/internal/hub"
)

// maxRecords is how many records are kept at least, for each agent and job.
const maxRecords = 20_000

// SyncRecord is a sync that was handled.
type SyncRecord struct {
	// Seq rises over all submissions, syncs and log posts of the hub, in the order of handling.
	Seq     int64
	At      time.Time
	Request hub.SyncRequest
	// What was answered:
	Action         hub.Action
	JobID          string
	ShutdownReason hub.ShutdownReason
}

// LogPost is a log request that reached the log service's handling.
type LogPost struct {
	// Seq rises over all submissions, syncs and log posts of the hub, in the order of handling.
	Seq       int64
	At        time.Time
	StartFrom int
	Events    int
	Bytes     int
	// Held is how many events the log had before: a StartFrom above it is a gap.
	Held   int
	Status int
}

// Syncs returns the handled syncs of the agents that went by this name, in
// order; those of removed agents too. In a long run the oldest go.
func (h *Hub) Syncs(agent string) []SyncRecord {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.syncs[agent])
}

// LogPosts returns the handled posts to a job's log, in order. In a long run
// the oldest go.
func (h *Hub) LogPosts(jobID string) []LogPost {
	h.mu.Lock()
	defer h.mu.Unlock()
	if j := h.jobs[jobID]; j != nil {
		return slices.Clone(j.posts)
	}
	return nil
}

// Requests returns how many requests have come to an endpoint, whatever became
// of them.
func (h *Hub) Requests(e Endpoint) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts[e]
}

func (h *Hub) recordSync(a *agent, in hub.SyncRequest, out syncAnswer) {
	h.syncs[a.Name] = keepLast(append(h.syncs[a.Name], SyncRecord{
		Seq: h.nextSeq(), At: a.LastSync, Request: in,
		Action: out.Action, JobID: out.JobID, ShutdownReason: out.ShutdownReason,
	}))
}

func keepLast[T any](records []T) []T {
	if len(records) < 2*maxRecords {
		return records
	}
	return slices.Clone(records[len(records)-maxRecords:])
}
