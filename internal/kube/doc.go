// Package kube is a Kubernetes cluster as an executor needs it: pods, Secrets, a ConfigMap, execs. It alone knows client-go, of which it
// takes the REST client rather than the set of clients for every kind there is: that halves a worker's binary and memory.
//
// Errors are whole sentences for a job's log. Which kind an error is of tell ErrUnreachable, ErrForbidden, ErrNotFound and ErrExists.
package kube
