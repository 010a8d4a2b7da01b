package eventlog

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWalk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	require.NoError(t, Walk(path, func(Event) bool { t.Error("there is no log"); return true }))
	var log []byte
	for _, e := range []Event{
		JobStarted(noon), CmdStarted(noon, "make"), CmdOutput(noon, "one"), CmdFinished(noon, "make", 2, noon, noon), JobFinished(noon, "failed"),
	} {
		log = append(e.AppendJSON(log), "\nrubbish\n"...)
	}
	log = append(log, `{"timestamp":1,"output":"of a plugin","event":"cmd_output"}`+"\n"...)
	require.NoError(t, os.WriteFile(path, log, 0o600))
	var kinds []Kind
	collect := func(most int) func(Event) bool {
		kinds = nil
		return func(e Event) bool { kinds = append(kinds, e.Kind); return len(kinds) < most }
	}
	require.NoError(t, Walk(path, collect(100)))
	assert.Equal(t, []Kind{KindJobStarted, KindCmdStarted, KindCmdFinished, KindJobFinished}, kinds)
	require.NoError(t, Walk(path, collect(2)))
	assert.Equal(t, []Kind{KindJobStarted, KindCmdStarted}, kinds)
	require.Error(t, Walk(filepath.Dir(path), collect(1)))
}
