package uploader

import (
	"bytes"
	"time"

	"github.com/signalman-ci/signalman/shared/eventlog"
)

// Observer hears how a log is shipped. Its methods are called by Run's goroutine and must not wait for anything.
type Observer interface {
	// Sending tells that a request is about to be made, and when the oldest of its events came about, to the second. again says
	// that it repeats one that has failed.
	Sending(oldest time.Time, again bool)
	// Sent tells what came of it: the error of Service.Push, and how much the service has that it had never had of this Uploader.
	Sent(err error, shipped Amount)
}

// Amount is a part of a log.
type Amount struct {
	Events, Bytes int64
}

// shippedFirst is what the service has of a batch that it hadn't had before.
func (u *Uploader) shippedFirst(err error, batch eventlog.Batch) Amount {
	end := Position{Index: batch.First + int64(batch.Count), Offset: batch.End}
	if err != nil || end.Index <= u.shipped.Index {
		return Amount{}
	}
	first := Amount{Events: end.Index - u.shipped.Index, Bytes: end.Offset - u.shipped.Offset}
	u.shipped = end
	return first
}

// firstTime is when the first event of a batch came about.
func firstTime(batch eventlog.Batch) time.Time {
	line, _, _ := bytes.Cut(batch.Data, []byte("\n"))
	event, err := eventlog.Parse(line)
	if err != nil || event.Timestamp == 0 {
		return time.Now()
	}
	return time.Unix(event.Timestamp, 0)
}

// unobserved is the observer of a log that has none.
type unobserved struct{}

func (unobserved) Sending(time.Time, bool) {}
func (unobserved) Sent(error, Amount)      {}
