//go:build !windows

package shell

import "syscall"

// attributes make a process run with the owner's rights.
func (o owner) attributes() *syscall.SysProcAttr {
	if !o.switched {
		return nil
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.gid), Groups: o.groups}}
}
