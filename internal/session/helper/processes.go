//go:build linux

package helper

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

type process struct {
	pid, parent int
	zombie      bool
}

// processes lists what runs in this process's pid namespace.
func processes() []process {
	paths, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is fine
	var all []process
	for _, path := range paths {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		// PID (NAME) STATE PPID …, and a name may hold anything.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		parent, _ := strconv.Atoi(string(fields[1]))
		all = append(all, process{pid: pid, parent: parent, zombie: fields[0][0] == 'Z'})
	}
	return all
}

// reap waits for orphans that this process has adopted and that have ended. The shell is waited for by its session.
func (s *Server) reap() {
	s.processes.Lock()
	defer s.processes.Unlock()
	self := os.Getpid()
	for _, p := range processes() {
		if p.parent == self && p.zombie && p.pid != s.shellPid {
			_, _ = syscall.Wait4(p.pid, nil, syscall.WNOHANG, nil)
		}
	}
}

// signal signals all that descends from the server, and so all that the shell started, daemons too, as orphans become
// the server's children. It returns how many processes got it. After KILL it is to be repeated until that is 0: a
// process may have forked meanwhile.
func (s *Server) signal(sig syscall.Signal) int {
	all := processes()
	ours := map[int]bool{os.Getpid(): true}
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if ours[p.parent] && !ours[p.pid] {
				ours[p.pid], grown = true, true
			}
		}
	}
	count := 0
	for _, p := range all {
		if ours[p.pid] && p.pid != os.Getpid() && !p.zombie && syscall.Kill(p.pid, sig) == nil {
			count++
		}
	}
	return count
}
