package agent

import (
	"sync"
	"time"

	"github.com/signalman-ci/signalman/internal/uploader"
	"github.com/signalman-ci/signalman/shared/eventlog"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// Observer hears what slots do. Its methods are called concurrently and must not wait for anything.
type Observer interface {
	// Synced tells what came of a sync: nil, or an error of hub.Client.
	Synced(slot int, err error)
	// Shipping tells that a job's log is going to be shipped: its path, and how many bytes of it the hub has for certain. What
	// hears how that goes is closed at its end.
	Shipping(log string, acked func() int64) Shipping
	// JobEnded tells that a job is over, before the hub is told. A job that several supervisors had a hand in is told once.
	JobEnded(End)
}

// Shipping hears how one job's log is shipped.
type Shipping interface {
	uploader.Observer
	Close()
}

// Tracer is given each job that is over, as Observer is, but may take the time to read its log.
type Tracer interface {
	Trace(End)
}

// End is a job that is over.
type End struct {
	JobID string
	// Name is that of the job's request; it may be "".
	Name string
	Slot int
	// Executor is "" if no worker was launched.
	Executor string
	Result   protocol.Result
	// Taken is when the hub gave the job out, Ended when its log came to its end.
	Taken, Ended time.Time
	// Log is the path of the event log.
	Log      string
	Delivery Delivery
}

// Delivery is what this supervisor did to ship a log. Times are zero if no request was made.
type Delivery struct {
	First, Last        time.Time
	Requests, Failures int64
	Shipped            uploader.Amount
}

// lateLook is how much later than the log's last event its end may have been seen, for that to be the more exact time of the two.
const lateLook = 2 * time.Second

// endOf tells when a log came to its end, which may be long before now: while no supervisor ran. Events have whole seconds.
func endOf(log string, now time.Time) time.Time {
	last, ok, err := eventlog.Last(log)
	if at := time.Unix(last.Timestamp, 0); err == nil && ok && now.Sub(at) > lateLook {
		return at
	}
	return now
}

// delivery sums up what it passes on.
type delivery struct {
	Shipping

	mu  sync.Mutex
	sum Delivery
}

func (d *delivery) Sending(oldest time.Time, again bool) {
	d.mu.Lock()
	d.sum.Requests++
	if d.sum.First.IsZero() {
		d.sum.First = time.Now()
	}
	d.mu.Unlock()
	d.Shipping.Sending(oldest, again)
}

func (d *delivery) Sent(err error, shipped uploader.Amount) {
	d.mu.Lock()
	d.sum.Last = time.Now()
	if err != nil {
		d.sum.Failures++
	}
	d.sum.Shipped.Events += shipped.Events
	d.sum.Shipped.Bytes += shipped.Bytes
	d.mu.Unlock()
	d.Shipping.Sent(err, shipped)
}

func (d *delivery) soFar() Delivery {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sum
}

// unobserved is the observer of a slot that has none.
type unobserved struct{}

func (unobserved) Synced(int, error)                      {}
func (unobserved) Shipping(string, func() int64) Shipping { return unobserved{} }
func (unobserved) JobEnded(End)                           {}
func (unobserved) Sending(time.Time, bool)                {}
func (unobserved) Sent(error, uploader.Amount)            {}
func (unobserved) Close()                                 {}
