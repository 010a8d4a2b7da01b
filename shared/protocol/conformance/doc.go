// Package conformance is the kit that every worker has to pass: it starts a worker's binary as a supervisor does, gives it
// jobs over gRPC and reads their event logs. It knows nothing of how a worker is made, so it serves plugins written in
// any language. In the test of a Go plugin:
//
//	func TestConformance(t *testing.T) {
//		conformance.Run(t, conformance.Worker{Path: "/path/to/worker-NAME"})
//	}
//
// The command "supervisor plugins check" runs the same cases. Jobs use what POSIX asks of every system (sh, od, cat, ls,
// sleep), so they run in small containers as well. What a job has started is looked for in this host's /proc where it shows
// there, and else only asked for with List.
package conformance
