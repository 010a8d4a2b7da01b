package eventlog

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Unix(1_700_000_000, 0)

func tempLog(t testing.TB) string { return filepath.Join(t.TempDir(), "events.jsonl") }

func openWriter(t testing.TB, path string, opts Options) *Writer {
	t.Helper()
	w, err := OpenWriter(path, opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func openReader(t testing.TB, path string) *Reader {
	t.Helper()
	r, err := OpenReader(path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

// readEvents parses a file that must consist of whole lines.
func readEvents(t testing.TB, path string) []Event {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, len(data) == 0 || data[len(data)-1] == '\n', "torn last line")
	var events []Event
	for line := range bytes.Lines(data) {
		e, err := Parse(line)
		require.NoError(t, err)
		events = append(events, e)
	}
	return events
}

func kinds(events []Event) []Kind {
	var out []Kind
	for _, e := range events {
		out = append(out, e.Kind)
	}
	return out
}

// requireOnly checks that nothing but the log and its index is left.
func requireOnly(t testing.TB, path string) {
	t.Helper()
	files, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	require.ElementsMatch(t, []string{path, path + indexSuffix}, files)
}
