package pluginhost

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A supervisor that is short of open files knows nothing of its worker, least of all that it has ended.
func TestWorkerThatCannotBeSeen(t *testing.T) {
	w := start(t, launch(t))
	at := w.Address()
	watcher := &attached{&proc{ended: make(chan struct{}), pid: at.Process.PID, id: at.Process}}
	var old unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: old.Max}))
	_, attachErr := Attach(at, hclog.NewNullLogger())
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	waitErr := watcher.Wait(ctx)
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old))

	require.Error(t, attachErr)
	assert.NotErrorAs(t, attachErr, new(*GoneError))
	require.ErrorIs(t, waitErr, context.DeadlineExceeded)
	select {
	case <-watcher.ended:
		assert.Fail(t, "a worker that lives was said to have ended")
	default:
	}
	_, err := w.Describe(deadline(t))
	require.NoError(t, err)
}
