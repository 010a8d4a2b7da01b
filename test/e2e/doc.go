// Package e2e runs the real binaries against a hub over HTTP: every test starts its own supervisor process.
package e2e
