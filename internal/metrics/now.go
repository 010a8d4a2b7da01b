package metrics

import (
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/agent/state"
	"github.com/signalman-ci/signalman/internal/uploader"
)

// slotStates are the states that slots are counted by, always all of them. silent are those in which a slot doesn't sync.
var (
	silent     = []string{agent.Registering, agent.Paused, agent.Drained, agent.Left}
	slotStates = append([]string{
		string(state.Waiting), string(state.Starting), string(state.Running), string(state.Stopping), string(state.Finished), other,
	}, silent...)
)

var (
	slotsDesc = prometheus.NewDesc(prefix+"slots", "Slots by their state.", []string{"state"}, nil)
	readyDesc = prometheus.NewDesc(prefix+"ready", "1 if there are slots, and each has its registration or has left as it was to; else 0.", nil, nil)
	syncDesc  = prometheus.NewDesc(prefix+"last_sync_timestamp_seconds",
		"When a slot last synced, or this supervisor began, as Unix time. A slot that is to be silent (paused, drained, registering, left) isn't there.", []string{"slot"}, nil)
	spoolDesc = prometheus.NewDesc(prefix+"spool_bytes", "Bytes of jobs' logs on disk that are to be shipped and that the hub doesn't have for certain.", nil, nil)
	lagDesc   = prometheus.NewDesc(prefix+"upload_lag_seconds", "Age of the oldest event that was sent to the hub and is not acknowledged, over all jobs.", nil, nil)
)

// now collects what is looked at when somebody asks.
type now struct{ *Metrics }

// Describe implements prometheus.Collector.
func (now) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{slotsDesc, readyDesc, syncDesc, spoolDesc, lagDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (n now) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	n.mu.Lock()
	status := n.slots
	shipping := make([]*shipping, 0, len(n.shipping))
	for s := range n.shipping {
		shipping = append(shipping, s)
	}
	n.mu.Unlock()

	var slots []agent.Status
	if status != nil {
		slots = status() // which has locks of its own
	}
	count, ready := map[string]int{}, 0.
	if len(slots) > 0 {
		ready = 1
	}
	for _, s := range slots {
		if !slices.Contains(slotStates, s.State) {
			s.State = other
		}
		count[s.State]++
		if s.State == agent.Registering || s.State == agent.Left && s.Problem != "" {
			ready = 0
		}
		if !slices.Contains(silent, s.State) {
			gauge(syncDesc, unix(n.lastSync(s.Slot)), strconv.Itoa(s.Slot))
		}
	}
	for _, state := range slotStates {
		gauge(slotsDesc, float64(count[state]), state)
	}
	gauge(readyDesc, ready)

	var spool int64
	var lag time.Duration
	for _, s := range shipping {
		spool += s.spool()
		lag = max(lag, s.lag())
	}
	gauge(spoolDesc, float64(spool))
	gauge(lagDesc, lag.Seconds())
}

func (n now) lastSync(slot int) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	if at, found := n.synced[slot]; found {
		return at
	}
	return n.began
}

// shipping is the shipping of one job's log.
type shipping struct {
	*Metrics
	log   string
	acked func() int64

	oldestMu sync.Mutex
	oldest   time.Time // event that was sent and isn't acknowledged; zero: none
}

// Shipping implements agent.Observer.
func (m *Metrics) Shipping(log string, acked func() int64) agent.Shipping {
	s := &shipping{Metrics: m, log: log, acked: acked}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shipping[s] = struct{}{}
	return s
}

// Sending implements uploader.Observer.
func (s *shipping) Sending(oldest time.Time, again bool) {
	s.setOldest(oldest)
	if again {
		s.uploadRetries.Inc()
	}
}

// Sent implements uploader.Observer.
func (s *shipping) Sent(err error, shipped uploader.Amount) {
	s.uploads.WithLabelValues(string(kindOf(err))).Inc()
	s.shippedEvents.Add(float64(shipped.Events))
	s.shippedBytes.Add(float64(max(0, shipped.Bytes))) // after a power loss events can be behind where they were
	if err == nil {
		s.setOldest(time.Time{})
	}
}

// Close implements agent.Shipping.
func (s *shipping) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.shipping, s)
}

func (s *shipping) setOldest(t time.Time) {
	s.oldestMu.Lock()
	defer s.oldestMu.Unlock()
	s.oldest = t
}

// lag is the age of the oldest event that waits for an acknowledgement.
func (s *shipping) lag() time.Duration {
	s.oldestMu.Lock()
	defer s.oldestMu.Unlock()
	if s.oldest.IsZero() {
		return 0
	}
	return max(0, time.Since(s.oldest))
}

// spool is how much of the log waits on disk, in bytes.
func (s *shipping) spool() int64 {
	info, err := os.Stat(s.log)
	if err != nil {
		return 0 // there is none yet
	}
	return max(0, info.Size()-s.acked())
}
