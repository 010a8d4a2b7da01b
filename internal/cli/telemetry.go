package cli

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/signalman-ci/signalman/internal/config"
	"github.com/signalman-ci/signalman/internal/metrics"
	"github.com/signalman-ci/signalman/internal/supervisor"
	"github.com/signalman-ci/signalman/internal/tracing"
)

// lastTraces bounds the sending of traces when the process ends or becomes another program.
const lastTraces = 3 * time.Second

// telemetry is what tells others how the supervisor does: figures, and traces of jobs if somebody wants them.
type telemetry struct {
	figures *metrics.Metrics
	tracer  *tracing.Tracer // nil: there are no traces
}

// startTelemetry doesn't fail: what can't be told to others must not keep jobs from running.
func startTelemetry(ctx context.Context, cfg *config.Config, logger hclog.Logger) *telemetry {
	tracer, err := tracing.FromEnv(ctx, logger)
	if err != nil {
		logger.Warn("going on without traces", "error", err)
	}
	o := metrics.Options{Executors: append([]string{cfg.Executors.Shell, cfg.Executors.DockerCompose}, cfg.JobExecutors...)}
	if cfg.StatsD.Host != "" {
		o.StatsD = &metrics.StatsD{Host: cfg.StatsD.Host, Port: cfg.StatsD.Port, Namespace: cfg.StatsD.Namespace, Logger: logger}
	}
	return &telemetry{figures: metrics.New(o), tracer: tracer}
}

// watch makes it the observer of a supervisor that is yet to be opened.
func (t *telemetry) watch(s *supervisor.Settings) {
	s.Figures = t.figures
	s.Agent.Observer, s.Agent.Job.Observer = t.figures, t.figures
	if t.tracer != nil {
		s.Agent.Tracer = t.tracer
	}
}

// flush sends what waits, as this process is about to become another program.
func (t *telemetry) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), lastTraces)
	defer cancel()
	t.tracer.Flush(ctx)
	t.figures.Flush()
}

// close sends what waits for the last time.
func (t *telemetry) close() {
	ctx, cancel := context.WithTimeout(context.Background(), lastTraces)
	defer cancel()
	t.tracer.Close(ctx)
	t.figures.Close()
}
