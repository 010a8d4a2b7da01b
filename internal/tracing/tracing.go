// Package tracing sends a trace of each job that is over to an OpenTelemetry collector: the job, its sections, the delivery of its log.
//
// The spans are made from the event log, so a job that several supervisors had a hand in has its trace like any other, and secrets in
// directives are masked as they are there. Where to is said by the usual variables OTEL_*; without them nothing of this is made.
// This package alone knows OpenTelemetry's libraries.
package tracing

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/version"
	"github.com/signalman-ci/signalman/shared/eventlog"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const (
	// protocolSpoken is the one that is spoken, of those that OTEL_EXPORTER_OTLP_PROTOCOL may name; it is the default there.
	protocolSpoken = "http/protobuf"
	// maxSections bounds the spans of one job, maxName and maxDirective the texts of one, in bytes.
	maxSections  = 1000
	maxName      = 100
	maxDirective = 4 << 10
)

// Tracer sends traces. Its methods are safe for concurrent use; those of a nil one do nothing.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	logger   hclog.Logger
}

// FromEnv makes a Tracer as the variables OTEL_* say (the exporter reads the rest of them itself); nil if they name no endpoint for
// traces, or switch them off. There may be one in a process, which Close ends.
func FromEnv(ctx context.Context, logger hclog.Logger) (*Tracer, error) {
	endpoint := cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT"))
	off, _ := strconv.ParseBool(os.Getenv("OTEL_SDK_DISABLED"))
	if endpoint == "" || off || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return nil, nil
	}
	if p := cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"), protocolSpoken); p != protocolSpoken {
		return nil, fmt.Errorf("cannot send traces: OTEL_EXPORTER_OTLP_PROTOCOL is %q; only %s is spoken (a collector's port 4318)", p, protocolSpoken)
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot send traces: %w", err)
	}
	hostname, _ := os.Hostname()
	res, err := resource.New(ctx,
		resource.WithAttributes(
			attribute.String("service.name", "signalman"), attribute.String("service.version", version.Version), attribute.String("host.name", hostname)),
		resource.WithFromEnv()) // what the user says of it wins
	if err != nil {
		logger.Warn("OTEL_RESOURCE_ATTRIBUTES isn't understood", "error", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { logger.Warn("cannot send traces", "error", err) }))
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(res), sdk.WithSampler(sdk.AlwaysSample()))
	return &Tracer{provider: provider, tracer: provider.Tracer("github.com/signalman-ci/signalman"), logger: logger}, nil
}

// Flush sends what waits, until ctx ends.
func (t *Tracer) Flush(ctx context.Context) {
	if t == nil {
		return
	}
	if err := t.provider.ForceFlush(ctx); err != nil {
		t.logger.Warn("cannot send the last traces", "error", err)
	}
}

// Close is Flush for the last time.
func (t *Tracer) Close(ctx context.Context) {
	if t == nil {
		return
	}
	if err := t.provider.Shutdown(ctx); err != nil {
		t.logger.Warn("cannot send the last traces", "error", err)
	}
}

// Trace makes the trace of a job that is over; it is sent by and by.
func (t *Tracer) Trace(end agent.End) {
	if t == nil {
		return
	}
	ctx, root := t.tracer.Start(context.Background(), "job", trace.WithNewRoot(), trace.WithTimestamp(end.Taken), trace.WithAttributes(
		attribute.String("signalman.job.id", end.JobID), attribute.String("signalman.job.name", clipped(end.Name, maxName)),
		attribute.String("signalman.job.result", string(end.Result)), attribute.String("signalman.executor", end.Executor),
		attribute.Int("signalman.slot", end.Slot)))
	if end.Result == protocol.Failed {
		root.SetStatus(codes.Error, "the job has failed")
	}
	t.sections(ctx, end)
	last := end.Ended
	if d := end.Delivery; d.Requests > 0 {
		_, span := t.tracer.Start(ctx, "log delivery", trace.WithTimestamp(d.First), trace.WithAttributes(
			attribute.Int64("signalman.log.requests", d.Requests), attribute.Int64("signalman.log.failures", d.Failures),
			attribute.Int64("signalman.log.events", d.Shipped.Events), attribute.Int64("signalman.log.bytes", d.Shipped.Bytes)))
		span.End(trace.WithTimestamp(notBefore(d.Last, d.First)))
		if d.Last.After(last) {
			last = d.Last
		}
	}
	root.End(trace.WithTimestamp(notBefore(last, end.Taken)))
}

// sections makes the spans of a job's sections. The log has whole seconds.
func (t *Tracer) sections(ctx context.Context, end agent.End) {
	var open *eventlog.Event
	count := 0
	span := func(directive string, from time.Time, more ...attribute.KeyValue) trace.Span {
		count++
		_, s := t.tracer.Start(ctx, nameOf(directive), trace.WithTimestamp(from),
			trace.WithAttributes(append(more, attribute.String("signalman.directive", clipped(directive, maxDirective)))...))
		return s
	}
	err := eventlog.Walk(end.Log, func(e eventlog.Event) bool {
		switch e.Kind {
		case eventlog.KindCmdStarted:
			open = &e
		case eventlog.KindCmdFinished:
			open = nil
			from, to := time.Unix(e.StartedAt, 0), time.Unix(e.FinishedAt, 0)
			s := span(e.Directive, from, attribute.Int("signalman.exit_code", e.ExitCode))
			if e.ExitCode != 0 {
				s.SetStatus(codes.Error, fmt.Sprintf("exit code %d", e.ExitCode))
			}
			s.End(trace.WithTimestamp(notBefore(to, from)))
		}
		return count < maxSections
	})
	if err != nil {
		t.logger.Warn("the trace of a job lacks its sections", "job", end.JobID, "error", err)
	}
	if open != nil && count < maxSections { // a plugin's log need not be in order
		from := time.Unix(open.Timestamp, 0)
		s := span(open.Directive, from)
		s.SetStatus(codes.Error, "it has no end")
		s.End(trace.WithTimestamp(notBefore(end.Ended, from)))
	}
}

// nameOf is a span's name: the first line of the directive.
func nameOf(directive string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(directive), "\n")
	return cmp.Or(clipped(line, maxName), "section")
}

// clipped cuts a text to a size in bytes, between characters.
func clipped(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

func notBefore(t, least time.Time) time.Time {
	if t.Before(least) {
		return least
	}
	return t
}
