// Package loopback is about addresses that only this host can reach.
package loopback

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Check tells whether an address is a host:port on loopback. Port 0 is any free one.
func Check(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is no host:port, such as 127.0.0.1:8070", address)
	}
	if !IsHost(host) {
		return fmt.Errorf("%q is not on loopback: this is for this host only (127.0.0.1, ::1 or localhost); "+
			"to reach it from another one use an ssh tunnel: ssh -L %[2]s:127.0.0.1:%[2]s HOST", address, port)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%q has no port that can be: it is a number up to 65535", address)
	}
	return nil
}

// IsHost tells whether a host, without port and brackets, is this one by an address or name that no stranger has a say in.
func IsHost(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}

// Listen listens at an address. What a name stands for is not taken on trust.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	if err := Check(address); err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if addr, ok := l.Addr().(*net.TCPAddr); !ok || !addr.IP.IsLoopback() {
		_ = l.Close()
		return nil, fmt.Errorf("%s is %s here, which is not on loopback", address, l.Addr())
	}
	return l, nil
}
