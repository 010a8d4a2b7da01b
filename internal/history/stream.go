package history

import (
	"context"
	"errors"
	"fmt"

	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/shared/eventlog"
)

const (
	streamEvents = 1000
	streamBytes  = 256 << 10
)

// BeyondError says that a log has fewer events than were to be passed over.
type BeyondError struct{ Events int64 }

func (e *BeyondError) Error() string { return fmt.Sprintf("the log has %d events only", e.Events) }

// Log is a job's log, from an event on. It is for one goroutine.
type Log struct {
	folder string
	reader *eventlog.Reader
}

// OpenLog opens the log of a job at the event of an index; it need not exist yet. The error is ErrNotFound without such a job, and a
// BeyondError if the log doesn't reach to the index yet.
func OpenLog(jobs, id string, from int64) (*Log, error) {
	if _, err := Get(jobs, id); err != nil {
		return nil, err
	}
	folder := jobdir.Path(jobs, id)
	r, err := eventlog.OpenReader(jobdir.EventsPath(folder))
	if err != nil {
		return nil, err
	}
	if err := seek(r, from); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &Log{folder: folder, reader: r}, nil
}

func seek(r *eventlog.Reader, from int64) error {
	if from <= 0 {
		return nil
	}
	if exact, err := r.SeekIndex(from); err != nil || exact {
		return err
	}
	if err := r.SeekEnd(); err != nil {
		return err
	}
	events, _ := r.Position()
	return &BeyondError{Events: events}
}

// Stream gives the events to emit: whole lines as they stand in the log, many at a time, which are valid until emit returns. With follow it
// goes on while the log grows, until the job is over; it waits to be told of that by the operating system. It ends with the first
// error of emit, or of ctx.
func (l *Log) Stream(ctx context.Context, follow bool, emit func(lines []byte) error) error {
	for over := false; ctx.Err() == nil; {
		batch, err := l.reader.Next(streamEvents, streamBytes)
		switch {
		case err != nil:
			return err
		case batch.Count > 0:
			if err := emit(batch.Data); err != nil {
				return err
			}
		case over || !follow:
			return nil
		case isOver(l.folder): // what came before that belongs to the log
			over = true
		default:
			if err := l.reader.Wait(ctx); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// Close ends the Log.
func (l *Log) Close() error { return l.reader.Close() }

// isOver tells whether nothing will come into a log any more.
func isOver(path string) bool {
	last, ok, err := eventlog.Last(jobdir.EventsPath(path))
	if err == nil && ok && last.Kind == eventlog.KindJobFinished {
		return true
	}
	f, err := jobdir.Open(path) // one without an end in its log, or its folder has gone
	return err != nil || !f.State().Done.IsZero()
}
