package supervisor

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/systemd"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// A reload tries the limits while slots may do so, too.
func TestTrialsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	s := w.open()
	if s.cgroups == nil || systemd.Booted() {
		t.Skip("no cgroups that could be tried directly")
	}
	set := s.Current()
	set.Agent.Job.Cgroups, set.Agent.Job.Limits = s.cgroups, protocol.Limits{Pids: 100}
	if err := s.tryCgroups(set); err != nil {
		t.Skip("limits can't be set here: ", err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				assert.NoError(t, s.tryCgroups(set))
			}
		})
	}
	all.Wait()
	require.NoError(t, s.tryCgroups(set))
}
