package conformance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/shared/protocol"
)

const (
	started  = `{"event":"job_started","timestamp":1}` + "\n"
	open     = `{"event":"cmd_started","timestamp":1,"directive":"c"}` + "\n"
	printed  = `{"event":"cmd_output","timestamp":1,"output":"o"}` + "\n"
	closed   = `{"event":"cmd_finished","timestamp":1,"directive":"c","exit_code":3,"started_at":1,"finished_at":1}` + "\n"
	finished = `{"event":"job_finished","timestamp":1,"result":"failed"}` + "\n"
)

func read(t *testing.T, log string) (*record, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	require.NoError(t, os.WriteFile(path, []byte(log), 0o600))
	return readRecord(path)
}

func TestReadRecord(t *testing.T) {
	r, err := read(t, started+open+printed+printed+closed+open+closed+finished)
	require.NoError(t, err)
	require.Equal(t, &record{
		sections: []section{{directive: "c", output: "oo", exitCode: 3}, {directive: "c", exitCode: 3}}, result: protocol.Failed,
	}, r)
}

func TestMalformedLogs(t *testing.T) {
	for problem, log := range map[string]string{
		"the last line has no newline":                     strings.TrimSuffix(started+finished, "\n"),
		"line 1: job_started is the first event":           open + closed + finished,
		"line 2: job_started is the first event":           started + started + finished,
		`line 3: the section "c" begins before "c" has`:    started + open + open + closed + finished,
		"line 2: there is output outside a section":        started + printed + finished,
		`line 2: the section "c" ends, but is not the one`: started + closed + finished,
		`line 3: the section "d" ends, but is not the one`: started + open + strings.Replace(closed, `"c"`, `"d"`, 1) + finished,
		`line 3: job_finished comes while the section "c"`: started + open + finished,
		"line 3: cmd_started comes after job_finished":     started + finished + open + closed,
		"it does not end with job_finished":                started + open + closed,
		"line 3: it is not valid UTF-8":                    started + open + strings.Replace(printed, `"o"`, "\"\xff\"", 1) + closed + finished,
		"line 2: cannot parse the event":                   started + "hello\n" + finished,
		`line 2: the hub knows no event "news"`:            started + `{"event":"news","timestamp":1}` + "\n" + finished,
		"line 3: cmd_finished lacks the field exit_code":   started + open + strings.Replace(closed, "exit_code", "code", 1) + finished,
		"line 2: cmd_started lacks the field timestamp":    started + strings.Replace(open, "timestamp", "time", 1) + closed + finished,
	} {
		_, err := read(t, log)
		require.ErrorContains(t, err, problem)
	}
}

func TestWants(t *testing.T) {
	r := &record{result: protocol.Passed, sections: []section{
		{directive: "Pulling"}, {directive: exportDirective}, {directive: filesDirective}, {directive: "c", output: "o", exitCode: 1},
	}}
	require.NoError(t, r.wants(protocol.Passed, "c"))
	require.NoError(t, r.printed("c", "o", 1))
	require.Error(t, r.wants(protocol.Failed, "c"))
	require.Error(t, r.wants(protocol.Passed))
	require.Error(t, r.wants(protocol.Passed, "c", "d"))
	require.Error(t, r.printed("c", "", 1))
	require.Error(t, r.printed("c", "o", 0))
	require.Error(t, r.printed("none", "", 0))
}

func TestStatuses(t *testing.T) {
	good := []protocol.Status{
		{Phase: protocol.Preparing, JobID: "j"}, {Phase: protocol.Running, JobID: "j"}, {Phase: protocol.Finished, JobID: "j", Result: protocol.Passed},
	}
	require.NoError(t, checkStatuses(good, "j", protocol.Passed))
	require.Error(t, checkStatuses(good, "other", protocol.Passed))
	require.Error(t, checkStatuses(good, "j", protocol.Failed))
	require.Error(t, checkStatuses([]protocol.Status{good[1], good[0]}, "j", protocol.Passed))
}

func TestMarkedFindsProcesses(t *testing.T) {
	if _, err := os.Stat("/proc/self/cmdline"); err != nil {
		t.Skip("this system has no /proc")
	}
	require.Error(t, gone(os.Args[0]))
	require.NoError(t, gone("no-process-has-this-"+id()))
}
