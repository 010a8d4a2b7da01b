package hubtest

import (
	"bytes"
	"slices"
)

// eventLog holds the raw lines of one log, as they came: a slice a post and
// where its lines end. Nothing is decoded or copied. The bytes are never
// changed, so copies of an eventLog share them.
type eventLog struct {
	batches []batch
	events  int
	size    int64 // bytes
	trimmed bool  // the service's own event was added
}

type batch struct {
	data []byte   // whole lines, each with its '\n'
	ends []uint32 // ends[i] is the offset behind line i
}

// newBatch finds the lines of a post. It may append to body.
func newBatch(body []byte) batch {
	if len(body) > 0 && body[len(body)-1] != '\n' {
		body = append(body, '\n')
	}
	if bytes.HasPrefix(body, []byte("\n")) || bytes.Contains(body, []byte("\n\n")) {
		body = withoutEmptyLines(body)
	}
	ends := make([]uint32, 0, bytes.Count(body, []byte("\n")))
	for at := 0; at < len(body); {
		at += bytes.IndexByte(body[at:], '\n') + 1
		ends = append(ends, uint32(at))
	}
	return batch{data: body, ends: ends}
}

func withoutEmptyLines(body []byte) []byte {
	out := make([]byte, 0, len(body))
	for line := range bytes.Lines(body) {
		if len(line) > 1 {
			out = append(out, line...)
		}
	}
	return out
}

// cut drops all events from index n on. A larger n does nothing.
func (l *eventLog) cut(n int) {
	for l.events > n {
		last := &l.batches[len(l.batches)-1]
		if over := l.events - n; over < len(last.ends) {
			keep := len(last.ends) - over
			end := last.ends[keep-1]
			l.size -= int64(len(last.data)) - int64(end)
			last.data, last.ends = last.data[:end], last.ends[:keep]
			l.events = n
			return
		}
		l.size -= int64(len(last.data))
		l.events -= len(last.ends)
		l.batches = l.batches[:len(l.batches)-1]
	}
}

func (l *eventLog) append(b batch) {
	if len(b.ends) == 0 {
		return
	}
	l.batches = append(l.batches, b)
	l.events += len(b.ends)
	l.size += int64(len(b.data))
}

// clone returns a log that later cuts and appends don't touch.
func (l *eventLog) clone() eventLog {
	c := *l
	c.batches = slices.Clone(l.batches)
	return c
}

// bytes returns the whole log, a line an event.
func (l *eventLog) bytes() []byte {
	out := make([]byte, 0, l.size)
	for _, b := range l.batches {
		out = append(out, b.data...)
	}
	return out
}

// lines returns the events from an index on, without line ends.
func (l *eventLog) lines(from int) [][]byte {
	out := make([][]byte, 0, max(0, l.events-from))
	first := 0
	for _, b := range l.batches {
		for i := max(0, from-first); i < len(b.ends); i++ {
			start := uint32(0)
			if i > 0 {
				start = b.ends[i-1]
			}
			end := b.ends[i] - 1
			out = append(out, b.data[start:end:end])
		}
		first += len(b.ends)
	}
	return out
}
