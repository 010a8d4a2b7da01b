// Package chaos runs real supervisors and workers against a hub over HTTP and breaks all of them in a random order that follows
// from a seed: processes are killed and frozen, hub and log service go down, answer slowly, wrongly, late or not at all. At the
// end every job must have one result and its whole log, and nothing may be left over.
//
// The seed gives the jobs and the order of the faults; when each of them strikes what is up to the machine. So a run with the
// same seed is alike, but not the same.
package chaos
