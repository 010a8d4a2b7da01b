// Package metrics counts what a supervisor does: for Prometheus, which asks, and for a StatsD server, which is told.
//
// A Metrics is the observer of slots, jobs and uploads, whose packages say what they tell in interfaces of their own. What only
// counts as it is now (slots, spool, lag) is looked at when somebody asks. This package alone knows client_golang and the
// StatsD client. docs/metrics.md lists the figures; a test holds it, the dashboard and the alert rules against them.
package metrics

import (
	"net/http"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/plugins"
	"github.com/signalman-ci/signalman/internal/version"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const (
	prefix = "signalman_"
	// other and none are labels: of what isn't told by its name, and of jobs that had no worker.
	other = "other"
	none  = "none"
	// maxExecutors bounds the executors that are told by their names. A job can't make one up: only workers that were started are
	// told; but a folder can have any number of them.
	maxExecutors = 32
	// scrapes is how many may be answered at the same time, scrapeLimit how long one may take.
	scrapes     = 4
	scrapeLimit = 10 * time.Second
)

// The buckets, in seconds: a job takes from a second to six hours, what comes before its first event from milliseconds to minutes.
var (
	jobBuckets   = []float64{1, 2, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600}
	startBuckets = []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300}
	pullBuckets  = []float64{1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800}
)

// Metrics are the figures of one process. All methods are safe for concurrent use. Make one with New.
type Metrics struct {
	own     *prometheus.Registry // all but those of the Go runtime and the process
	handler http.Handler
	// statsd is nil if nobody is told.
	statsd *statsd

	jobs        *prometheus.CounterVec
	faults      *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	queue       prometheus.Histogram
	workerStart *prometheus.HistogramVec
	pull        prometheus.Histogram
	pullFailed  prometheus.Counter

	shippedEvents, shippedBytes prometheus.Counter
	uploads                     *prometheus.CounterVec
	uploadRetries               prometheus.Counter
	syncErrors                  *prometheus.CounterVec

	reloads    *prometheus.CounterVec
	reloadGood prometheus.Gauge
	refusals   *prometheus.CounterVec
	draining   prometheus.Gauge

	began time.Time

	mu        sync.Mutex
	executors map[string]bool
	slots     func() []agent.Status // nil until there are some
	synced    map[int]time.Time     // by slot: the last success
	shipping  map[*shipping]struct{}
}

// Options say what a Metrics is made of.
type Options struct {
	// Executors are the configured ones: their jobs are there with 0 from the first.
	Executors []string
	// StatsD is where to push the figures to; nil: nowhere.
	StatsD *StatsD
}

// New makes the figures. Close ends what it starts.
func New(o Options) *Metrics {
	m := &Metrics{
		own: prometheus.NewRegistry(), began: time.Now(),
		executors: map[string]bool{}, synced: map[int]time.Time{}, shipping: map[*shipping]struct{}{},
	}
	m.define()
	for _, name := range o.Executors {
		for _, result := range []protocol.Result{protocol.Passed, protocol.Failed, protocol.Stopped} {
			m.jobs.WithLabelValues(m.executor(name), string(result))
		}
	}
	common := prometheus.NewRegistry()
	common.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.handler = promhttp.HandlerFor(prometheus.Gatherers{m.own, common}, promhttp.HandlerOpts{
		DisableCompression: true, MaxRequestsInFlight: scrapes, Timeout: scrapeLimit,
	})
	if o.StatsD != nil {
		m.statsd = startStatsD(*o.StatsD, m.own)
	}
	return m
}

// Flush tells the StatsD server what it hasn't been told yet. Not to be called after Close.
func (m *Metrics) Flush() {
	if m.statsd != nil {
		m.statsd.flushNow()
	}
}

// Close is Flush for the last time.
func (m *Metrics) Close() {
	if m.statsd != nil {
		m.statsd.close()
	}
}

// Handler answers with all figures in Prometheus' format.
func (m *Metrics) Handler() http.Handler { return m.handler }

// define makes all figures and registers them.
func (m *Metrics) define() {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
		m.own.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + name, Help: help})
		m.own.MustRegister(g)
		return g
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + name, Help: help, Buckets: buckets}, labels)
		m.own.MustRegister(h)
		return h
	}
	m.jobs = counter("jobs_finished_total", "Jobs that are over, by executor (none: no worker was started) and result.", "executor", "result")
	m.faults = counter("job_faults_total", "Jobs that failed for what is no fault of their commands: the request, the start of the worker, the loss of the worker.", "reason")
	m.duration = histogram("job_duration_seconds", "From the hub's answer that gives a job out to the end of its log.", jobBuckets, "executor")
	m.queue = histogram("job_queue_seconds", "From the hub's answer that gives a job out to its first event.", startBuckets).WithLabelValues().(prometheus.Histogram)
	m.workerStart = histogram("worker_start_seconds", "From the launch of a job's worker to its first answer.", startBuckets, "executor")
	m.pull = histogram("image_pull_seconds", "How long the section of a job took that pulls its images, to the second, if they could be had.", pullBuckets).WithLabelValues().(prometheus.Histogram)
	m.pullFailed = counter("image_pull_failures_total", "Jobs whose images could not be had.").WithLabelValues()

	m.shippedEvents = counter("log_events_shipped_total", "Events of jobs' logs that the hub has.").WithLabelValues()
	m.shippedBytes = counter("log_bytes_shipped_total", "Bytes of jobs' logs, as they are on disk, that the hub has.").WithLabelValues()
	m.uploads = counter("log_upload_requests_total", "Requests that ship logs, by what came of them.", "outcome")
	m.uploadRetries = counter("log_upload_retries_total", "Requests that ship logs and repeat one that failed.").WithLabelValues()
	m.syncErrors = counter("sync_errors_total", "Syncs with the hub that failed, by what came of them.", "kind")

	m.reloads = counter("config_reloads_total", "Configurations that were read anew, by whether they were good.", "result")
	m.reloadGood = gauge("config_last_reload_successful", "Whether the configuration was good when it was last read: 1, or 0.")
	m.refusals = counter("plugin_refusals_total", "Plugins that were not used, by why.", "reason")
	m.draining = gauge("draining", "Whether no more jobs are taken since an operator wants it so: 1, or 0.")

	gauge("start_time_seconds", "When this supervisor began, as Unix time. An upgrade in place is a new begin.").Set(unix(m.began))
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + "build_info", Help: "1, with the version as a label."}, []string{"version", "goversion"})
	build.WithLabelValues(version.Version, runtime.Version()).Set(1)
	m.own.MustRegister(build, now{m})

	// What alert rules ask for is there from the first: an increase can be seen only of what was there before.
	for _, reason := range job.Faults {
		m.faults.WithLabelValues(string(reason))
	}
	for _, kind := range kinds {
		m.syncErrors.WithLabelValues(string(kind))
		m.uploads.WithLabelValues(string(kind))
	}
	m.uploads.WithLabelValues(string(ok))
	m.reloads.WithLabelValues(reloadOK)
	m.reloads.WithLabelValues(reloadFailed)
	for _, reason := range refusalReasons {
		m.refusals.WithLabelValues(reason)
	}
	m.reloadGood.Set(1) // it started with a good one
}

// executor is a name that may be a label.
func (m *Metrics) executor(name string) string {
	if name == "" {
		return none
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.executors[name] && len(m.executors) >= maxExecutors {
		return other
	}
	m.executors[name] = true
	return name
}

// WorkerStarted implements job.Observer.
func (m *Metrics) WorkerStarted(executor string, took time.Duration) {
	executor = m.executor(executor)
	m.workerStart.WithLabelValues(executor).Observe(took.Seconds())
	m.statsd.timing(took, "worker_start", executor)
}

// JobStarted implements job.Observer.
func (m *Metrics) JobStarted(_ string, waited time.Duration) {
	m.queue.Observe(waited.Seconds())
	m.statsd.timing(waited, "job_queue")
}

// JobFault implements job.Observer.
func (m *Metrics) JobFault(f job.Fault) { m.faults.WithLabelValues(string(f)).Inc() }

// JobEnded implements agent.Observer.
func (m *Metrics) JobEnded(end agent.End) {
	executor, took := m.executor(end.Executor), max(0, end.Ended.Sub(end.Taken))
	m.jobs.WithLabelValues(executor, string(end.Result)).Inc()
	m.duration.WithLabelValues(executor).Observe(took.Seconds())
	m.statsd.timing(took, "job_duration", executor)
	if end.Executor == pullExecutor {
		m.pulled(pullOf(end.Log))
	}
}

// pulled counts what a job's log says of its images.
func (m *Metrics) pulled(p pull) {
	switch {
	case p.failed:
		m.pullFailed.Inc()
		m.statsd.count("compose.docker.error.rate")
	case p.done:
		m.pull.Observe(p.took.Seconds())
		m.statsd.timing(p.took, "compose.docker.pull.duration")
		m.statsd.count("compose.docker.pull.rate")
	}
}

// Synced implements agent.Observer.
func (m *Metrics) Synced(slot int, err error) {
	if err != nil {
		m.syncErrors.WithLabelValues(string(kindOf(err))).Inc()
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.synced[slot] = time.Now()
}

const reloadOK, reloadFailed = "ok", "failed"

// ConfigReloaded counts a configuration that was read anew; ok says that it was good, and holds now.
func (m *Metrics) ConfigReloaded(ok bool) {
	if ok {
		m.reloads.WithLabelValues(reloadOK).Inc()
		m.reloadGood.Set(1)
		return
	}
	m.reloads.WithLabelValues(reloadFailed).Inc()
	m.reloadGood.Set(0)
}

// Draining tells whether an operator wants no more jobs to be taken.
func (m *Metrics) Draining(is bool) {
	if is {
		m.draining.Set(1)
		return
	}
	m.draining.Set(0)
}

// refusalReasons are why a plugin may be refused.
var refusalReasons = []string{plugins.UnpinnedReason, plugins.ChangedReason, plugins.UnusableReason, other}

// PluginRefused counts a plugin that isn't used. A reason that isn't one of ours counts as "other".
func (m *Metrics) PluginRefused(reason string) {
	if !slices.Contains(refusalReasons, reason) {
		reason = other
	}
	m.refusals.WithLabelValues(reason).Inc()
}

// Slots says where the slots' states can be looked up, from now on.
func (m *Metrics) Slots(status func() []agent.Status) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.slots = status
}

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
