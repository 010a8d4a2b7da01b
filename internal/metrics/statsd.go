package metrics

import (
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	client "github.com/DataDog/datadog-go/v5/statsd"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// StatsD says where figures are pushed to, by UDP.
type StatsD struct {
	Host string
	Port int
	// Namespace stands before each name, with a dot between them; "": nothing does.
	Namespace string
	// Every is the time between two pushes of what isn't a duration; 0 means 10 s.
	Every  time.Duration
	Logger hclog.Logger
}

const pushEvery = 10 * time.Second

// statsd pushes figures: durations as they come, counters (what was added) and gauges now and then. Names are plain ones without tags,
// which any StatsD server takes: labels become parts of them. A nil one does nothing.
type statsd struct {
	StatsD
	figures prometheus.Gatherer
	// client is nil while the server's name can't be looked up.
	client atomic.Pointer[client.Client]
	flush  chan chan struct{} // asks for all to be sent now; what comes is closed then
	stop   chan struct{}
	done   sync.WaitGroup

	// What follows is the pushing goroutine's own.
	told   map[string]float64 // counters
	failed bool               // was said
}

// startStatsD begins to push, until close.
func startStatsD(o StatsD, figures prometheus.Gatherer) *statsd {
	if o.Every <= 0 {
		o.Every = pushEvery
	}
	s := &statsd{StatsD: o, figures: figures, flush: make(chan chan struct{}), stop: make(chan struct{}), told: map[string]float64{}}
	s.done.Go(s.run)
	return s
}

func (s *statsd) run() {
	tick := time.NewTicker(s.Every)
	defer tick.Stop()
	for {
		s.push()
		select {
		case <-tick.C:
		case sent := <-s.flush:
			s.push()
			if c := s.client.Load(); c != nil {
				_ = c.Flush()
			}
			close(sent)
		case <-s.stop:
			s.push()
			if c := s.client.Load(); c != nil {
				_ = c.Close() // sends what it still has; nobody hears of a datagram's loss
			}
			return
		}
	}
}

func (s *statsd) close() {
	close(s.stop)
	s.done.Wait()
}

func (s *statsd) flushNow() {
	sent := make(chan struct{})
	s.flush <- sent
	<-sent
}

// connect looks the server up, if that hasn't been done. Its failure must not keep jobs from running.
func (s *statsd) connect() *client.Client {
	if c := s.client.Load(); c != nil {
		return c
	}
	options := []client.Option{client.WithoutTelemetry(), client.WithoutOriginDetection()} // which only one vendor's server understands
	if s.Namespace != "" {
		options = append(options, client.WithNamespace(s.Namespace))
	}
	c, err := client.New(net.JoinHostPort(s.Host, strconv.Itoa(s.Port)), options...)
	if err != nil {
		if !s.failed {
			s.Logger.Warn("cannot find the StatsD server (statsd.host); trying again", "error", err)
		}
		s.failed = true
		return nil
	}
	s.client.Store(c)
	return c
}

// push sends the counters and gauges.
func (s *statsd) push() {
	c := s.connect()
	if c == nil {
		return
	}
	families, _ := s.figures.Gather() // what can't be had is left out
	for _, family := range families {
		name := strings.TrimPrefix(family.GetName(), prefix)
		if strings.HasSuffix(name, "_info") || strings.HasSuffix(name, "time_seconds") || strings.HasSuffix(name, "timestamp_seconds") {
			continue // these say when, and what: no figures in this sense
		}
		name = strings.TrimSuffix(name, "_total")
		for _, metric := range family.GetMetric() {
			switch full := joined(name, metric.GetLabel()); family.GetType() {
			case dto.MetricType_COUNTER:
				value := metric.GetCounter().GetValue()
				if added := value - s.told[full]; added > 0 {
					_ = c.Count(full, int64(added), nil, 1)
				}
				s.told[full] = value
			case dto.MetricType_GAUGE:
				_ = c.Gauge(full, metric.GetGauge().GetValue(), nil, 1)
			}
		}
	}
}

// joined is a name with the values of its labels behind it.
func joined(name string, labels []*dto.LabelPair) string {
	for _, l := range labels {
		name += "." + word(l.GetValue())
	}
	return name
}

// word makes a part of a name of a text: dots and the protocol's own characters would make more of it.
func word(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '_'
	}, text)
}

// timing sends a duration.
func (s *statsd) timing(took time.Duration, name string, words ...string) {
	if s == nil {
		return
	}
	for _, w := range words {
		name += "." + word(w)
	}
	if c := s.client.Load(); c != nil {
		_ = c.Timing(name, took, nil, 1)
	}
}

// count sends that something has happened once.
func (s *statsd) count(name string) {
	if s == nil {
		return
	}
	if c := s.client.Load(); c != nil {
		_ = c.Count(name, 1, nil, 1)
	}
}
