package eventlog

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAppendJSON(t *testing.T) {
	for want, e := range map[string]Event{
		`{"event":"job_started","timestamp":1700000000}`:                                                    JobStarted(noon),
		`{"event":"cmd_started","timestamp":1700000000,"directive":"go <b> && \"x\""}`:                      CmdStarted(noon, `go <b> && "x"`),
		`{"event":"cmd_output","timestamp":1700000000,"output":"a\tb\\\r\n\u001b[0mé` + "\x7f\u2028" + `"}`: CmdOutput(noon, "a\tb\\\r\n\x1b[0mé\x7f\u2028"),
		`{"event":"cmd_output","timestamp":1700000000,"output":"` + "x\ufffd\ufffdy" + `"}`:                 CmdOutput(noon, "x\xe2\x82y"),
		`{"event":"cmd_finished","timestamp":1700000000,"directive":"d","exit_code":0,"started_at":1699999998,"finished_at":1700000000}`: CmdFinished(
			noon, "d", 0, noon.Add(-2*time.Second), noon),
		`{"event":"job_finished","timestamp":1700000000,"result":"passed"}`: JobFinished(noon, "passed"),
	} {
		assert.Equal(t, want, string(e.AppendJSON(nil)))
	}
}

func TestParseIsTolerant(t *testing.T) {
	e, err := Parse([]byte(`{ "exit_code": 3.0, "more": [1], "directive":"d", "timestamp": 1700000000.75, "started_at": null, "event":"cmd_finished" }` + "\n"))
	require.NoError(t, err)
	assert.Equal(t, Event{Kind: KindCmdFinished, Timestamp: 1_700_000_000, Directive: "d", ExitCode: 3}, e)

	e, err = Parse([]byte(`{"event":"news"}`))
	require.NoError(t, err)
	assert.Equal(t, Kind("news"), e.Kind)

	for _, bad := range []string{"", "\n", "null", "[]", "{}", `{"event":"cmd_output"`, `{"event":1}`, `{"event":"x","timestamp":"now"}`} {
		_, err := Parse([]byte(bad))
		assert.Error(t, err, bad)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"event":"cmd_output","timestamp":1,"output":"a\n\u0001\ud800 é"}`))
	f.Add(CmdFinished(noon, "ls \x00\xff", -1, noon, noon).AppendJSON(nil))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := Parse(line)
		if err != nil {
			return
		}
		encoded := e.AppendJSON(nil)
		require.True(t, json.Valid(encoded), "%s", encoded)
		require.NotContains(t, string(encoded), "\n")
		again, err := Parse(encoded)
		require.NoError(t, err)
		require.Equal(t, encoded, again.AppendJSON(nil))
		require.EqualValues(t, len(e.Output), outputLen(append(CmdOutput(noon, e.Output).AppendJSON(nil), '\n')))
	})
}

func TestText(t *testing.T) {
	var log []byte
	for _, e := range []Event{
		JobStarted(noon), CmdStarted(noon, "make"), CmdOutput(noon, "one\ntw"), CmdOutput(noon, "o"),
		CmdFinished(noon, "make", 2, noon, noon), CmdStarted(noon, "exit 0\n"), CmdFinished(noon, "exit 0", 0, noon, noon),
		CmdStarted(noon, "true"), CmdOutput(noon, "end"), JobFinished(noon, "failed"),
	} {
		log = append(e.AppendJSON(log), "\nrubbish\n"...)
	}
	var out strings.Builder
	require.NoError(t, Text(&out, strings.NewReader(string(log)+`{"event":"cmd_output","output":"torn"}`)))
	assert.Equal(t, "make\none\ntwo\nexit code: 2\nexit 0\ntrue\nend\n", out.String())
}
