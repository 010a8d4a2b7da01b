package hubtest

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// keepPort takes a port of the loopback interface until release is called, and gives its address. It is bound and doesn't listen: a
// listener of ours can be put over it, while the kernel gives the port to nobody else who wants just any, for a listener or for a
// connection, even when ours is down.
func keepPort() (addr string, release func(), err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", nil, os.NewSyscallError("socket", err)
	}
	release = func() { _ = unix.Close(fd) }
	addr, err = bindAny(fd)
	if err != nil {
		release()
		return "", nil, err
	}
	return addr, release, nil
}

func bindAny(fd int) (addr string, err error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil { // as listeners of package net have it
		return "", os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return "", os.NewSyscallError("bind", err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return "", os.NewSyscallError("getsockname", err)
	}
	return fmt.Sprintf("127.0.0.1:%d", bound.(*unix.SockaddrInet4).Port), nil
}
