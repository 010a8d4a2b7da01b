// Package helper runs package session's shell inside a container, for a worker outside. It is a prototype, which the
// compose and kubernetes executors are to be built on; docs/decisions/0002-session-and-helper.md says what it showed.
//
// An exec in a container or pod has standard streams only: no further file descriptor, no way to signal what it
// started, and its streams break now and then. So a static helper is put into the container, as two processes:
//
//	worker                                │ container
//	Client ◄── streams of an exec (no -t) ──► relay ◄── unix socket ──► server ── terminal ── bash
//	                                      │                             │ └ journal (a file)
//
// The server lives from the first exec on and owns the shell. What it has to say, output and ends of requests, goes to
// a journal: one stream of frames, a place in which is a byte offset. A relay is what an exec runs: it starts the server
// if there is none and copies bytes between its standard streams and the server's socket. A connection begins with the
// offset that the client has read up to; the server sends the journal from there, and takes requests, numbered, of which
// a repeated one is ignored. So after a broken stream the client makes a new exec, says its offset, repeats its request,
// and neither loses nor doubles a byte.
package helper
