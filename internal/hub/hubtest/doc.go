// Package hubtest is a hub and a log service over real HTTP on 127.0.0.1, for
// tests and for "supervisor dev".
//
// A [Hub] behaves as the real one does towards agents: registration, sync, job
// requests that can be had once, log tokens, and the log service's start_from.
// On top it can be looked into (snapshots, records of every sync and log post),
// waited on (conditions, never polling) and made to misbehave ([Fault],
// [Hub.Down]). [CheckLog] tells whether a finished log is well-formed.
//
// It knows nothing of the agent but the protocol, and doesn't import "testing".
//
// Where the protocol leaves room: a log's fullness is judged before the cut (but
// after the reset by start_from 0); an agent that syncs a job it doesn't hold is
// told to continue; a handed-out job whose agent is shut down before it has
// taken the job goes back to the head of the queue. The limit on the handling
// of a request isn't kept; [Late] with a status shows its effect.
package hubtest
