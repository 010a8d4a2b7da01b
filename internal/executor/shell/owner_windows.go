package shell

import "syscall"

// attributes would switch the user, which a Windows worker doesn't do.
func (o owner) attributes() *syscall.SysProcAttr { return nil }
