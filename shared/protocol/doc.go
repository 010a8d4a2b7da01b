// Package protocol is the contract between Signalman's supervisor and the worker processes that run jobs.
//
// A worker is an executable named worker-NAME. Written in Go it implements Executor, a place where commands run, and calls
// Serve in its main; the order of a job's sections, its hooks, epilogues and result are the runner's, in this package. In
// another language it implements the gRPC service of proto/signalman/executor/v1/executor.proto, and appends the events
// itself. Client is the supervisor's side. The conformance kit that every worker has to pass is in the folder
// conformance.
//
// The package needs nothing of Signalman's internals, so that a plugin can be a module of its own.
package protocol
