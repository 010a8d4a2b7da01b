// Package hub is the agent's side of the hub's HTTP API and of its log service.
//
// A [Client] makes one request per call and reports what came of it; it never
// retries, keeps no state about agents or jobs and decides nothing. Whether and
// when a call is repeated is up to the caller, who is helped by typed errors:
// [*RequestError] (no answer), [*StatusError] (an answer that says no) and
// [*AnswerError] (an answer that isn't understood), and by [Ambiguous], which
// tells whether a failed request may still be carried out by the service.
//
// Tokens go into request headers and nowhere else: no error holds one.
package hub
