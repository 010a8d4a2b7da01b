//go:build unix

package page

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/performance"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	jobhistory "github.com/signalman-ci/signalman/internal/history"
	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/shared/eventlog"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// keep makes the folder of an ended job, as if it had run here. A line has its number in it, and every hundredth a colour.
func (h *host) keep(id string, lines, width, linesAnEvent int) {
	h.t.Helper()
	f, err := jobdir.Create(h.path("state/jobs"), id, 1)
	require.NoError(h.t, err)
	w, err := eventlog.OpenWriter(f.EventsPath(), eventlog.Options{})
	require.NoError(h.t, err)
	began := time.Now().Add(-time.Minute)
	require.NoError(h.t, w.Append(eventlog.JobStarted(began), eventlog.CmdStarted(began, "make everything")))
	filler := strings.Repeat("x", max(0, width-30))
	var out strings.Builder
	for n := 1; n <= lines; n++ {
		if n%100 == 0 {
			fmt.Fprintf(&out, "\x1b[33mline %d\x1b[0m %s\n", n, filler)
		} else {
			fmt.Fprintf(&out, "line %d of the log %s\n", n, filler)
		}
		if n%linesAnEvent == 0 || n == lines {
			require.NoError(h.t, w.Append(eventlog.CmdOutput(began, out.String())))
			out.Reset()
		}
	}
	require.NoError(h.t, w.Append(eventlog.CmdFinished(began, "make everything", 0, began, began.Add(time.Second)), eventlog.JobFinished(began, "passed")))
	require.NoError(h.t, w.Close())
	require.NoError(h.t, f.Update(func(s *jobdir.State) { s.Name = "a large log" }))
	require.NoError(h.t, jobhistory.Close(f, protocol.Passed))
	require.NoError(h.t, f.Finish())
}

// However long a log is, few of its lines are in the DOM.
func largeLog(h *host) {
	const lines = 300000 // more than a section has boxes for
	h.keep("large", lines, 60, 200)
	tb := h.signedIn("#/jobs/large")
	tb.seeText(".log .t", fmt.Sprintf("line %d", lines)) // the end comes first
	tb.is(fmt.Sprintf(`document.querySelector(".log:not(.unnumbered) .l[data-n='%d']")`, lines))
	drawn := func() {
		h.t.Helper()
		assert.Less(h.t, eval[int](tb, `document.querySelectorAll(".log *").length`), 12000)
	}
	drawn()
	tb.keys("g")
	tb.seeText(".l[data-n='1'] .t", "line 1 of")
	drawn()
	tb.goTo(fmt.Sprintf("#/jobs/large/L%d", lines/2))
	tb.seeText(".l.target .t", fmt.Sprintf("line %d ", lines/2))
	drawn()
	tb.seeText(".gap", "lines after")
	tb.keys("/")
	tb.keys("line 77777 of")
	tb.seeText(".l.hit .t", "line 77777 of")
	tb.seeText(".count", "1 / 1")
	drawn()
}

func TestFigures(t *testing.T) {
	if !*figures {
		t.Skip("run with -figures")
	}
	h := newHost(t, "")
	t.Logf("supervisor: %s", h.memory())
	tb := h.signedIn("#/health")
	tb.seeText(".facts", "goroutines")
	eval[bool](tb, "new Promise((r) => setTimeout(() => r(true), 10000))")
	t.Logf("supervisor with the page open: %s", h.memory())
	for _, log := range []struct {
		name                string
		lines, width, event int
	}{{"100 MB in 1,000,000 lines", 1000000, 100, 50}, {"1,000,000 lines, an event each", 1000000, 60, 1}} {
		h.keep("large", log.lines, log.width, log.event)
		info, err := os.Stat(h.path("state/jobs/large/events.jsonl"))
		require.NoError(t, err)
		tb := h.signedIn("")
		call(tb, performance.Enable, performance.EnableParams{})
		began := time.Now()
		tb.goTo("#/jobs/large")
		tb.seeText(".log .t", fmt.Sprintf("line %d", log.lines))
		end := time.Since(began)
		tb.is(fmt.Sprintf(`document.querySelector(".log:not(.unnumbered) .l[data-n='%d']")`, log.lines))
		whole := time.Since(began)
		tb.keys("/")
		tb.keys("line 999999 of")
		began = time.Now()
		tb.seeText(".l.hit .t", "line 999999 of")
		found := time.Since(began)
		metrics := map[string]float64{}
		for _, m := range call(tb, performance.GetMetrics, cdp.Empty{}).Metrics {
			metrics[m.Name] = m.Value
		}
		t.Logf("%s (%d MB on disk): the end after %v, the whole after %v, a search %v, heap %.0f MB, DOM %.0f nodes; supervisor: %s", log.name, info.Size()>>20,
			end.Round(10*time.Millisecond), whole.Round(10*time.Millisecond), found.Round(10*time.Millisecond), metrics["JSHeapUsedSize"]/(1<<20), metrics["Nodes"], h.memory())
		require.NoError(t, os.RemoveAll(filepath.Join(h.path("state/jobs"), "large")))
	}
}

// memory is what the supervisor takes.
func (h *host) memory() string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.sup.PID()))
	require.NoError(h.t, err)
	var found []string
	for line := range strings.Lines(string(raw)) {
		if name, value, ok := strings.Cut(line, ":"); ok && (name == "VmRSS" || name == "RssAnon") {
			found = append(found, name+" "+strings.TrimSpace(value))
		}
	}
	return strings.Join(found, ", ")
}
