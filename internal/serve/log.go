package serve

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/signalman-ci/signalman/shared/eventlog"
)

const (
	sendEvents = 1000
	sendBytes  = 256 << 10
	// wholeLimit is how long a reader who reads for good waits for the last event, while that is held back for the callback.
	wholeLimit = 10 * time.Second
)

// awaitWhole waits, for a while, for the last event of a log that has ended.
func (j *served) awaitWhole(ctx context.Context) {
	select {
	case <-j.ended:
	default:
		return
	}
	select {
	case <-j.told:
	case <-time.After(wholeLimit):
	case <-ctx.Done():
	}
}

// sendLog sends the events from an index on that there are now. The log's sparse index tells where they begin, so this costs what is
// sent. The last event, job_finished, is held back until the result was told: in that order the hub expects it.
func (j *served) sendLog(ctx context.Context, w http.ResponseWriter, from int64) error {
	told := closed(j.told) // before the look at the log
	r, err := eventlog.OpenReader(j.folder.EventsPath())
	if err != nil {
		return err
	}
	defer r.Close()
	end, err := r.Size()
	if err != nil {
		return err
	}
	exact := true
	if from > 0 {
		if exact, err = r.SeekIndex(from); err != nil {
			return err
		}
	}
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusOK)
	out := &patient{w: w}
	for exact && ctx.Err() == nil {
		if _, at := r.Position(); at >= end {
			break
		}
		batch, err := r.Next(sendEvents, sendBytes)
		if err != nil {
			return err
		}
		if batch.Count == 0 {
			break
		}
		lines := batch.Data
		if !told {
			lines = withoutEnd(lines)
		}
		if _, err := out.Write(lines); err != nil {
			return fmt.Errorf("the caller takes no more: %w", err)
		}
	}
	return ctx.Err()
}

// withoutEnd takes a last line that is job_finished off.
func withoutEnd(lines []byte) []byte {
	start := bytes.LastIndexByte(lines[:len(lines)-1], '\n') + 1
	if e, err := eventlog.Parse(lines[start:]); err == nil && e.Kind == eventlog.KindJobFinished {
		return lines[:start]
	}
	return lines
}
