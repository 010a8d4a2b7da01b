// Package harness builds the real binaries, runs supervisors as processes and looks at what they leave: what the tests under
// test/ have in common.
package harness
