package hubtest_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

const (
	jobStarted  = `{"event":"job_started","timestamp":1}`
	cmdStarted  = `{"event":"cmd_started","timestamp":1,"directive":"d"}`
	cmdOutput   = `{"event":"cmd_output","timestamp":1,"output":"x\n"}`
	cmdFinished = `{"event":"cmd_finished","timestamp":1,"directive":"d","exit_code":0,"started_at":1,"finished_at":1}`
	jobFinished = `{"event":"job_finished","timestamp":1,"result":"passed"}`
)

func lines(all ...string) [][]byte {
	return bytes.Split([]byte(strings.Join(all, "\n")), []byte("\n"))
}

func TestCheckLog(t *testing.T) {
	require.NoError(t, hubtest.CheckLog(lines(jobStarted, jobFinished)))
	require.NoError(t, hubtest.CheckLog(lines(jobStarted, cmdStarted, cmdOutput, cmdOutput, cmdFinished, cmdStarted, cmdFinished, jobFinished)))
	require.NoError(t, hubtest.CheckLog(lines(jobStarted,
		`{"event":"cmd_output","timestamp":1,"output":"`+strings.TrimSpace(hubtest.TrimmedOutput)+`\n"}`, jobFinished)))

	for name, c := range map[string]struct {
		log  [][]byte
		says string
	}{
		"empty":                {nil, "empty"},
		"no start":             {lines(cmdStarted), "line 0"},
		"start twice":          {lines(jobStarted, jobStarted), "second job_started"},
		"no end":               {lines(jobStarted, cmdStarted, cmdFinished), "no job_finished"},
		"end twice":            {lines(jobStarted, jobFinished, jobFinished), "after job_finished"},
		"more after the end":   {lines(jobStarted, jobFinished, cmdStarted), "after job_finished"},
		"result missing":       {lines(jobStarted, `{"event":"job_finished","timestamp":1}`), "result"},
		"result unknown":       {lines(jobStarted, `{"event":"job_finished","timestamp":1,"result":"great"}`), "result"},
		"doubled section head": {lines(jobStarted, cmdStarted, cmdStarted), "inside of"},
		"section head missing": {lines(jobStarted, cmdFinished), "hasn't begun"},
		"section end missing":  {lines(jobStarted, cmdStarted, jobFinished), "inside of"},
		"other directive":      {lines(jobStarted, cmdStarted, strings.Replace(cmdFinished, `"d"`, `"e"`, 1)), "is open"},
		"output outside":       {lines(jobStarted, cmdOutput), "outside"},
		"output missing":       {lines(jobStarted, cmdStarted, `{"event":"cmd_output","timestamp":1}`), "no output"},
		"carriage return":      {lines(jobStarted, cmdStarted, `{"event":"cmd_output","timestamp":1,"output":"x\r\n"}`), "CR"},
		"no exit code":         {lines(jobStarted, cmdStarted, strings.Replace(cmdFinished, `"exit_code":0,`, "", 1)), "lacks"},
		"no directive":         {lines(jobStarted, `{"event":"cmd_started","timestamp":1}`), "directive"},
		"no timestamp":         {lines(`{"event":"job_started"}`), "timestamp"},
		"unknown event":        {lines(jobStarted, `{"event":"party","timestamp":1}`), "unknown"},
		"no event":             {lines(jobStarted, `{"timestamp":1}`), "no event"},
		"no JSON":              {lines(jobStarted, `{"event`), "JSON"},
		"no UTF-8":             {lines(jobStarted, "{\"event\":\"\xff\"}"), "UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorContains(t, hubtest.CheckLog(c.log), c.says)
		})
	}
}
