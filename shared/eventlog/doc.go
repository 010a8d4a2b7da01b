// Package eventlog is a job's event log on disk: the only copy of the log that counts, and the way on which it travels
// from the worker that runs the job to the supervisor that ships it.
//
// The log is a file of JSON objects, one a line, in the format of the hub's protocol; an event's index is the number of
// its line, from 0. A line is never changed nor removed once it is complete, so an index that has been shipped keeps its
// meaning. A worker writes with a Writer, and turns a command's output into events with an OutputWriter. The supervisor
// tails the file with a Reader, which hands out raw lines without decoding them. When a worker has died, Last and Inspect
// tell how far its log came, and a Writer opened by the supervisor repairs and closes it. There is one writer at a time;
// a plugin in another language may append lines itself and needs none of the files below.
//
// Beside the log, here events.jsonl, a Writer keeps:
//
//	events.jsonl.idx         the offset of every 128th event, a hint for Reader.SeekIndex
//	events.jsonl.reserve     disk space held back for the events that close a log, gone once the Writer is closed
//	events.jsonl.tail.0, .1  the newest events of a log that has used half of Options.MaxBytes, oldest segment first;
//	                         appended to the log when the job ends, or by the next OpenWriter
//	events.jsonl.tail.drop   a segment on its way out
package eventlog
