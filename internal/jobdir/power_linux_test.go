package jobdir

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/testdisk"
)

// A running job whose log was being delivered is there after a loss of power, and can go on.
func TestPowerLossWhileTheLogIsDelivered(t *testing.T) {
	dir, losePower := testdisk.XFS(t)
	jobs := filepath.Join(dir, "jobs")
	f := create(t, jobs, "a-job", 1)
	require.NoError(t, f.Update(func(s *State) { s.Worker = &Worker{Executor: "shell"} }))
	for i := range int64(10) {
		require.NoError(t, f.Note(func(s *State) { s.Acked, s.AckedOffset = i+1, 100*(i+1) }))
	}
	losePower()

	folders, broken, err := Unfinished(jobs)
	require.NoError(t, err)
	require.Empty(t, broken)
	require.Len(t, folders, 1)
	state := folders[0].State()
	assert.Equal(t, "shell", state.Worker.Executor)
	assert.LessOrEqual(t, state.Acked, int64(10))
	assert.Equal(t, 100*state.Acked, state.AckedOffset)

	require.NoError(t, folders[0].Note(func(s *State) { s.Acked, s.AckedOffset = 11, 1100 }))
	again, err := Open(filepath.Join(jobs, "a-job"))
	require.NoError(t, err)
	assert.EqualValues(t, 11, again.State().Acked)
}

// What an Update has said stays said.
func TestPowerLossAfterUpdates(t *testing.T) {
	dir, losePower := testdisk.XFS(t)
	jobs := filepath.Join(dir, "jobs")
	for _, id := range []string{"taken", "begun", "done"} {
		f := create(t, jobs, id, 1)
		require.NoError(t, f.SaveRequest([]byte("{}")))
		if id == "taken" {
			continue
		}
		require.NoError(t, f.Note(func(s *State) { s.Acked, s.AckedOffset = 7, 700 }))
		require.NoError(t, f.Update(func(s *State) { s.Worker = &Worker{Executor: "shell"} }))
		if id == "done" {
			require.NoError(t, f.Finish())
		}
	}
	losePower()

	for _, id := range []string{"taken", "begun", "done"} {
		f, err := Open(filepath.Join(jobs, id))
		require.NoError(t, err, id)
		s := f.State()
		assert.Equal(t, id != "taken", s.Worker != nil, id)
		assert.Equal(t, id == "done", !s.Done.IsZero(), id)
		if id != "taken" {
			assert.EqualValues(t, 7, s.Acked, "job.json has it too")
		}
		if id != "done" {
			raw, err := f.Request()
			require.NoError(t, err)
			assert.Equal(t, "{}", string(raw))
		}
	}
}

// Whatever a power loss has made of acked.json: the job is there, with an index that it has had.
func TestAckedThatIsTorn(t *testing.T) {
	f := create(t, t.TempDir(), "a-job", 1)
	note := func(to int64) []byte {
		require.NoError(t, f.Note(func(s *State) { s.Acked, s.AckedOffset = to, 100*to }))
		raw, err := os.ReadFile(f.ackedPath())
		require.NoError(t, err)
		return raw
	}
	note(3)
	require.NoError(t, f.Update(func(*State) {}))
	older, newer := note(1111), note(2222)
	require.Len(t, older, ackedSize)
	require.Len(t, newer, ackedSize)
	opened := func(content []byte) int64 {
		require.NoError(t, os.WriteFile(f.ackedPath(), content, 0o600))
		again, err := Open(f.path)
		require.NoError(t, err)
		assert.Equal(t, 100*again.State().Acked, again.State().AckedOffset)
		return again.State().Acked
	}
	for cut := range newer {
		torn := append(append([]byte{}, newer[:cut]...), older[cut:]...)
		assert.Contains(t, []int64{3, 1111, 2222}, opened(torn))
		assert.Contains(t, []int64{3, 2222}, opened(newer[:cut]))
	}
	assert.EqualValues(t, 2222, opened(newer))
	assert.EqualValues(t, 3, opened(make([]byte, ackedSize)))
	assert.EqualValues(t, 3, opened([]byte("null")))
	require.NoError(t, os.Remove(f.ackedPath()))
	again, err := Open(f.path)
	require.NoError(t, err)
	assert.EqualValues(t, 3, again.State().Acked)
}
