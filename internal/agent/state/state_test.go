package state

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// machineIn brings a machine into a state by legal moves.
func machineIn(t *testing.T, s State) *Machine {
	t.Helper()
	m := &Machine{}
	steps := map[State][]func() error{
		Waiting:  {},
		Starting: {func() error { return m.Take("job") }},
		Running:  {func() error { return m.Take("job") }, m.Hold},
		Stopping: {func() error { return m.Take("job") }, m.Hold, m.Stop},
		Finished: {func() error { return m.Take("job") }, m.Hold, func() error { return m.Finish("passed") }},
	}
	path, known := steps[s]
	require.True(t, known)
	for _, step := range path {
		require.NoError(t, step())
	}
	require.Equal(t, s, m.State())
	return m
}

var states = []State{Waiting, Starting, Running, Stopping, Finished}

// TestTable tries every move in every state; what isn't listed here is illegal and must change nothing.
func TestTable(t *testing.T) {
	moves := map[string]struct {
		do    func(*Machine) error
		legal map[State]Machine
	}{
		"take": {
			do:    func(m *Machine) error { return m.Take("next") },
			legal: map[State]Machine{Waiting: {state: Starting, jobID: "next"}},
		},
		"drop": {
			do:    (*Machine).Drop,
			legal: map[State]Machine{Starting: {state: Waiting}},
		},
		"hold": {
			do:    (*Machine).Hold,
			legal: map[State]Machine{Starting: {state: Running, jobID: "job"}},
		},
		"stop": {
			do: (*Machine).Stop,
			legal: map[State]Machine{
				Running:  {state: Stopping, jobID: "job"},
				Stopping: {state: Stopping, jobID: "job"}, // the hub repeats itself
			},
		},
		"finish": {
			do: func(m *Machine) error { return m.Finish("failed") },
			legal: map[State]Machine{
				Starting: {state: Finished, jobID: "job", result: "failed"},
				Running:  {state: Finished, jobID: "job", result: "failed"},
				Stopping: {state: Finished, jobID: "job", result: "failed"},
			},
		},
		"release": {
			do:    (*Machine).Release,
			legal: map[State]Machine{Finished: {state: Waiting}},
		},
	}
	assert.Len(t, moves, len(table), "a move has no test")
	for name, move := range moves {
		for _, s := range states {
			t.Run(fmt.Sprintf("%s while %s", name, s), func(t *testing.T) {
				m := machineIn(t, s)
				before := *m
				err := move.do(m)
				if want, ok := move.legal[s]; ok {
					require.NoError(t, err)
					assert.Equal(t, want, *m)
					return
				}
				require.EqualError(t, err, fmt.Sprintf("a slot in state %s can't %s", s, name))
				assert.Equal(t, before, *m)
			})
		}
	}
}

func TestZeroValueWaits(t *testing.T) {
	var m Machine
	assert.Equal(t, Waiting, m.State())
	assert.Empty(t, m.JobID())
	assert.Empty(t, m.Result())
}

func TestNextJobStartsAfresh(t *testing.T) {
	m := machineIn(t, Finished)
	assert.Equal(t, "passed", m.Result())
	require.NoError(t, m.Release())
	require.NoError(t, m.Take("next"))
	assert.Equal(t, "next", m.JobID())
	assert.Empty(t, m.Result())
}
