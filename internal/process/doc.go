// Package process identifies processes beyond the reuse of their ids, and ends whole trees of them.
//
// A worker makes itself the reaper of all that its job starts (Reaper): a daemonised process comes back to it as a child,
// so that Tree finds everything among its descendants. What outlived its worker is found by a mark in its environment, or by the
// session that it is in.
package process
