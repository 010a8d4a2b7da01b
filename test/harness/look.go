package harness

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Marked lists the running processes that have a text in their arguments or their environment, by pid, with their arguments.
// It needs Linux's /proc.
func Marked(text string) (map[int]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("cannot list processes: %w", err)
	}
	found := map[int]string{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		for _, file := range []string{"cmdline", "environ"} { // both are empty for a zombie, and gone for one that has ended
			raw, err := os.ReadFile(filepath.Join("/proc", e.Name(), file))
			if err == nil && bytes.Contains(raw, []byte(text)) {
				args, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
				found[pid] = string(bytes.ReplaceAll(args, []byte{0}, []byte(" ")))
				break
			}
		}
	}
	return found, nil
}

// Crashes gives what a program of ours has printed that it never should: reports of the race detector and panics.
func Crashes(printed string) []string {
	var found []string
	for _, sign := range []string{"WARNING: DATA RACE", "panic:", "fatal error:"} {
		if at := strings.Index(printed, sign); at >= 0 {
			found = append(found, fmt.Sprintf("%.4000s", printed[at:]))
		}
	}
	return found
}

// WorkerCrashes looks for crashes in the logs of all workers of a state folder, by file.
func WorkerCrashes(stateDir string) (map[string][]string, error) {
	logs, err := filepath.Glob(filepath.Join(stateDir, "jobs", "*", "worker.log"))
	if err != nil {
		return nil, err
	}
	found := map[string][]string{}
	for _, path := range logs {
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) { // the folder has gone meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		if crashes := Crashes(string(raw)); len(crashes) > 0 {
			found[path] = crashes
		}
	}
	return found, nil
}
