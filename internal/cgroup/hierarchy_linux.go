package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// wanted are the controllers that jobs are bounded and counted with.
func wanted() []string { return []string{"memory", "pids", "cpu"} }

// hierarchy is one mounted tree of cgroups.
type hierarchy struct {
	v2 bool
	// mount is the folder where it is mounted, root the cgroup that one sees there.
	mount, root string
	// controllers are all that a v1 hierarchy is bound to, named ones as name=NAME. Of v2 each folder tells its own.
	controllers []string
}

// procsFile moves whole processes, and lists them.
const procsFile = "cgroup.procs"

// hierarchies lists what /proc/self/mountinfo (proc(5)) says is mounted.
func hierarchies(mountinfo []byte) []*hierarchy {
	var out []*hierarchy
	for line := range bytes.Lines(mountinfo) {
		before, after, found := strings.Cut(string(line), " - ")
		place, kind := strings.Fields(before), strings.Fields(after)
		if !found || len(place) < 5 || len(kind) < 3 || kind[0] != "cgroup" && kind[0] != "cgroup2" {
			continue
		}
		h := &hierarchy{v2: kind[0] == "cgroup2", root: unescape(place[3]), mount: unescape(place[4])}
		if !h.v2 {
			for option := range strings.SplitSeq(kind[2], ",") {
				if option != "rw" && option != "ro" {
					h.controllers = append(h.controllers, option)
				}
			}
		}
		out = append(out, h)
	}
	return out
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// usable picks the hierarchies that jobs are put in: v2, and those of v1 with a controller of use. Without any of them another
// one of v1, if only to know a job's processes by it. A hierarchy that is mounted twice counts once.
func usable(all []*hierarchy) []*hierarchy {
	var out, others []*hierarchy
	seen := map[string]bool{}
	for _, h := range all {
		key := strings.Join(slices.Sorted(slices.Values(h.controllers)), ",")
		if seen[key] {
			continue
		}
		seen[key] = true
		if h.v2 || slices.ContainsFunc(wanted(), h.has) {
			out = append(out, h)
		} else {
			others = append(others, h)
		}
	}
	if len(out) == 0 && len(others) > 0 {
		return others[:1]
	}
	return out
}

// has tells whether a v1 hierarchy is bound to a controller.
func (h *hierarchy) has(controller string) bool { return slices.Contains(h.controllers, controller) }

func (h *hierarchy) version() string {
	if h.v2 {
		return "v2"
	}
	return "v1"
}

// folderOf gives the folder of the cgroup that a process is in by its /proc/PID/cgroup. Of a cgroup outside of what is mounted
// it is none.
func (h *hierarchy) folderOf(membership []byte) (string, bool) {
	lines := bufio.NewScanner(bytes.NewReader(membership))
	for lines.Scan() {
		// hierarchy id, controllers, path; v2 has id 0 and no controllers
		fields := strings.SplitN(lines.Text(), ":", 3)
		if len(fields) < 3 {
			continue
		}
		mine := h.v2 && fields[0] == "0" && fields[1] == ""
		if !h.v2 {
			mine = slices.ContainsFunc(strings.Split(fields[1], ","), h.has)
		}
		if mine {
			return h.visible(fields[2])
		}
	}
	return "", false
}

func (h *hierarchy) visible(path string) (string, bool) {
	rest, ok := path, true
	if h.root != "/" {
		rest, ok = strings.CutPrefix(path, h.root)
		ok = ok && (rest == "" || rest[0] == '/')
	}
	if !ok || rest == "/.." || strings.HasPrefix(rest, "/../") {
		return "", false
	}
	return filepath.Join(h.mount, rest), true
}

// isV2 tells the kind of a cgroup by its folder.
func isV2(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cgroup.controllers"))
	return err == nil
}

// write sets a cgroup's file. It makes none: a missing file means a missing controller.
func write(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// words reads a file of words.
func words(dir, file string) ([]string, error) {
	raw, err := os.ReadFile(filepath.Join(dir, file))
	return strings.Fields(string(raw)), err
}

// counter reads the number after a name in a file of such lines; without file or name it is 0.
func counter(dir, file, name string) (int64, error) {
	raw, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, ignoreMissing(err)
	}
	for line := range strings.Lines(string(raw)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return number(value)
		}
	}
	return 0, nil
}

func numberIn(dir, file string) (int64, error) {
	raw, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	return number(string(raw))
}

func number(text string) (int64, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("cannot make sense of a cgroup's file: %w", err)
	}
	return n, nil
}

// ignoreMissing drops the errors of a cgroup that is gone: ENODEV is what reading an open file of one gives.
func ignoreMissing(err error) error {
	if isGone(err) {
		return nil
	}
	return err
}
