package tracing

import (
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/uploader"
	"github.com/signalman-ci/signalman/shared/eventlog"
	"github.com/signalman-ci/signalman/shared/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver is a collector that keeps what it is sent.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	headers  http.Header
	resource map[string]any
	spans    map[string]*tracepb.Span // by name
}

// startReceiver makes the receiver what the usual variables name.
func startReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{spans: map[string]*tracepb.Span{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var body io.Reader = req.Body
		if req.Header.Get("Content-Encoding") == "gzip" {
			body, _ = gzip.NewReader(req.Body)
		}
		raw, err := io.ReadAll(body)
		var export collector.ExportTraceServiceRequest
		if err != nil || req.URL.Path != "/v1/traces" || proto.Unmarshal(raw, &export) != nil {
			http.Error(w, "no traces", http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.headers = req.Header
		for _, of := range export.GetResourceSpans() {
			r.resource = attributes(of.GetResource().GetAttributes())
			for _, scope := range of.GetScopeSpans() {
				for _, s := range scope.GetSpans() {
					r.spans[s.GetName()] = s
				}
			}
		}
	}))
	t.Cleanup(r.Close)
	withoutVariables(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", r.URL)
	return r
}

// withoutVariables makes the test independent of what it was started with.
func withoutVariables(t *testing.T) {
	t.Helper()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, "")
		}
	}
}

func attributes(list []*common.KeyValue) map[string]any {
	all := map[string]any{}
	for _, kv := range list {
		switch v := kv.GetValue().GetValue().(type) {
		case *common.AnyValue_StringValue:
			all[kv.GetKey()] = v.StringValue
		case *common.AnyValue_IntValue:
			all[kv.GetKey()] = v.IntValue
		}
	}
	return all
}

func tracer(t *testing.T) *Tracer {
	t.Helper()
	tr, err := FromEnv(t.Context(), hclog.NewNullLogger())
	require.NoError(t, err)
	require.NotNil(t, tr)
	return tr
}

func closed(t *testing.T, tr *Tracer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tr.Close(ctx)
}

func logWith(t *testing.T, events ...eventlog.Event) string {
	t.Helper()
	var raw []byte
	for _, e := range events {
		raw = append(e.AppendJSON(raw), '\n')
	}
	path := filepath.Join(t.TempDir(), "events.jsonl")
	require.NoError(t, os.WriteFile(path, raw, 0o600))
	return path
}

var noon = time.Unix(1_700_000_000, 0)

func after(seconds int) time.Time { return noon.Add(time.Duration(seconds) * time.Second) }

func nanos(t time.Time) uint64 { return uint64(t.UnixNano()) }

func TestTrace(t *testing.T) {
	r := startReceiver(t)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "team=web")
	tr := tracer(t)
	tr.Trace(agent.End{
		JobID: "j1", Name: "unit tests", Slot: 2, Executor: "shell", Result: protocol.Failed, Taken: noon, Ended: after(9),
		Log: logWith(t, eventlog.JobStarted(after(1)),
			eventlog.CmdStarted(after(1), "make\n\ttest"), eventlog.CmdOutput(after(2), "secret output"), eventlog.CmdFinished(after(5), "make\n\ttest", 2, after(1), after(5)),
			eventlog.CmdStarted(after(6), "true"), eventlog.CmdFinished(after(6), "true", 0, after(6), after(6)),
			eventlog.CmdStarted(after(7), "never ends"), eventlog.JobFinished(after(9), "failed")),
		Delivery: agent.Delivery{First: after(1), Last: after(10), Requests: 4, Failures: 1, Shipped: uploader.Amount{Events: 8, Bytes: 900}},
	})
	closed(t, tr)

	r.mu.Lock()
	defer r.mu.Unlock()
	assert.Equal(t, "s3cret", r.headers.Get("api-key"))
	assert.Equal(t, "signalman", r.resource["service.name"])
	assert.Equal(t, "web", r.resource["team"])
	assert.NotEmpty(t, r.resource["host.name"])
	require.Len(t, r.spans, 5)
	root := r.spans["job"]
	assert.Empty(t, root.GetParentSpanId())
	assert.Equal(t, []uint64{nanos(noon), nanos(after(10))}, []uint64{root.GetStartTimeUnixNano(), root.GetEndTimeUnixNano()}, "with the delivery")
	assert.Equal(t, tracepb.Status_STATUS_CODE_ERROR, root.GetStatus().GetCode())
	assert.Equal(t, map[string]any{
		"signalman.job.id": "j1", "signalman.job.name": "unit tests", "signalman.job.result": "failed", "signalman.executor": "shell", "signalman.slot": int64(2),
	}, attributes(root.GetAttributes()))
	for name, want := range map[string]struct {
		from, to int
		failed   bool
		more     map[string]any
	}{
		"make":         {1, 5, true, map[string]any{"signalman.directive": "make\n\ttest", "signalman.exit_code": int64(2)}},
		"true":         {6, 6, false, map[string]any{"signalman.directive": "true", "signalman.exit_code": int64(0)}},
		"never ends":   {7, 9, true, map[string]any{"signalman.directive": "never ends"}},
		"log delivery": {1, 10, false, map[string]any{"signalman.log.requests": int64(4), "signalman.log.failures": int64(1), "signalman.log.events": int64(8), "signalman.log.bytes": int64(900)}},
	} {
		s := r.spans[name]
		require.NotNil(t, s, name)
		assert.Equal(t, root.GetSpanId(), s.GetParentSpanId(), name)
		assert.Equal(t, root.GetTraceId(), s.GetTraceId(), name)
		assert.Equal(t, []uint64{nanos(after(want.from)), nanos(after(want.to))}, []uint64{s.GetStartTimeUnixNano(), s.GetEndTimeUnixNano()}, name)
		assert.Equal(t, want.failed, s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR, name)
		assert.Equal(t, want.more, attributes(s.GetAttributes()), name)
	}
}

// What a job does can't make its trace large.
func TestTraceIsBounded(t *testing.T) {
	r := startReceiver(t)
	tr := tracer(t)
	events := []eventlog.Event{eventlog.JobStarted(noon)}
	for range 3 * maxSections {
		events = append(events, eventlog.CmdFinished(noon, strings.Repeat("é", maxDirective), 0, noon, noon))
	}
	tr.Trace(agent.End{JobID: "j", Result: protocol.Passed, Taken: noon, Ended: after(-5), Log: logWith(t, events...)})
	closed(t, tr)
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Len(t, r.spans, 2, "one name for all sections, and the job")
	for name, s := range r.spans {
		assert.LessOrEqual(t, len(name), maxName+len("…"))
		assert.LessOrEqual(t, s.GetStartTimeUnixNano(), s.GetEndTimeUnixNano())
		directive, _ := attributes(s.GetAttributes())["signalman.directive"].(string)
		assert.LessOrEqual(t, len(directive), maxDirective+len("…"))
	}
	assert.Equal(t, tracepb.Status_STATUS_CODE_UNSET, r.spans["job"].GetStatus().GetCode())
}

func TestNothingWithoutAnEndpoint(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"nothing set":  {},
		"switched off": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
		"no traces":    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
	} {
		t.Run(name, func(t *testing.T) {
			withoutVariables(t)
			for k, v := range env {
				t.Setenv(k, v)
			}
			tr, err := FromEnv(t.Context(), hclog.NewNullLogger())
			require.NoError(t, err)
			require.Nil(t, tr)
			tr.Trace(agent.End{}) // and nothing comes of using it
			tr.Flush(t.Context())
			tr.Close(t.Context())
		})
	}
}

func TestProtocolThatIsNotSpoken(t *testing.T) {
	withoutVariables(t)
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	_, err := FromEnv(t.Context(), hclog.NewNullLogger())
	require.ErrorContains(t, err, "http/protobuf")
}

// A collector that doesn't answer holds the end up for no longer than it may.
func TestCollectorThatIsSilent(t *testing.T) {
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(hang)
	withoutVariables(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	tr := tracer(t)
	tr.Trace(agent.End{JobID: "j", Result: protocol.Passed, Taken: noon, Ended: noon, Log: "none"})
	begin := time.Now()
	for _, end := range []func(context.Context){tr.Flush, tr.Close} {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		end(ctx)
		cancel()
	}
	assert.Less(t, time.Since(begin), 9*time.Second, "the exporter's own time-out is 10 s")
}
