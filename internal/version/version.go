// Package version holds the version that this binary was built as.
package version

// Version is set by the Makefile at link time.
var Version = "dev"
