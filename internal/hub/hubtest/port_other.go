//go:build !linux

package hubtest

// keepPort keeps none here: somebody else may take a port while its listener is down.
func keepPort() (addr string, release func(), err error) { return "127.0.0.1:0", func() {}, nil }
