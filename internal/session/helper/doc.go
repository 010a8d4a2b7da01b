// Package helper runs package session's shell inside a container, for a worker outside. docs/decisions/0002-session-and-helper.md
// says why it is as it is.
//
// An exec in a container or pod has standard streams only: no further file descriptor, no way to signal what it
// started, and its streams break now and then. So a static helper is put into the container, as two processes:
//
//	worker                                │ container
//	Client ◄── streams of an exec (no -t) ──► relay ◄── unix socket ──► server ── terminal ── bash
//	                                      │                             │ └ journal (in memory)
//
// The server is what the container runs, by its entrypoint if it has one, and owns the shell. What it has to say, output and ends of
// requests, goes to a journal: one stream of frames, a place in which is a byte offset. A relay is what an exec runs: it waits for the
// server's socket and copies bytes between that and its standard streams. A connection begins with the
// offset that the client has read up to; the server sends the journal from there, and takes requests, numbered, of which
// a repeated one is ignored. So after a broken stream the client makes a new exec, says its offset, repeats its request,
// and neither loses nor doubles a byte. The journal keeps what the client hasn't confirmed, up to a limit at which commands wait.
package helper
