package agent

import (
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/job"
)

func TestAlive(t *testing.T) {
	a := New(Settings{Slot: 3, Logger: hclog.NewNullLogger(), Job: job.Settings{StopGrace: time.Minute}}, nil)
	require.NoError(t, a.Alive())
	a.setBusy(true)
	a.setStatus("waiting-for-jobs", "")
	require.NoError(t, a.Alive())
	assert.WithinDuration(t, time.Now().Add(busyLimit+6*time.Minute), a.overdue, time.Minute, "the end of a job may take longer")
	a.overdue = time.Now().Add(-time.Second)
	require.ErrorContains(t, a.Alive(), "slot 3 is busy with one thing")
	a.setStatus(Registering, "refused")
	require.NoError(t, a.Alive(), "it waits to be registered")
	a.setStatus("waiting-for-jobs", "")
	a.setBusy(false)
	assert.NoError(t, a.Alive())
}
