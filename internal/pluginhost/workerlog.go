package pluginhost

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"unicode"

	"github.com/signalman-ci/signalman/internal/process"
)

// LogLimit is how large a worker's log may become, in bytes.
const LogLimit = 8 << 20

// TrimLog shortens a worker's log that is larger than limit, in bytes (1 KiB at least), to about half of that: its head and its
// tail stay, and a line between them says so. The worker goes on writing meanwhile, as it appends; of that, what comes between
// two system calls is lost. A log that isn't there is fine. One at a time may trim a log.
//
// Somebody has to call it again and again: between two calls, and as long as no supervisor runs, the log grows as fast as the worker
// writes. A worker that nobody talks to for 15 minutes ends.
func TrimLog(path string, limit int64) error {
	if err := trimLog(path, limit); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot shorten a worker's log: %w", err)
	}
	return nil
}

func trimLog(path string, limit int64) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || info.Size() <= limit {
		return err
	}
	keep := make([]byte, limit/4)
	if _, err := file.ReadAt(keep, 0); err != nil {
		return err
	}
	head := int64(len(keep))
	if i := bytes.LastIndexByte(keep, '\n'); i >= 0 {
		head = int64(i) + 1
	}
	note := fmt.Sprintf("[signalman: this log came to %d bytes; what stood here was left out, as it may have %d]\n", info.Size(), limit)
	if keep[head-1] != '\n' {
		note = "\n" + note
	}
	if _, err := file.ReadAt(keep, info.Size()-int64(len(keep))); err != nil {
		return err
	}
	if i, j := bytes.IndexByte(keep, '\n'), bytes.LastIndexByte(keep, '\n'); i < j { // whole lines
		keep = keep[i+1 : j+1]
	}
	// What is appended before the end moves goes; nothing can come between. A full disk has the room for it, since it is had already.
	if _, err := file.WriteAt(append([]byte(note), keep...), head); err != nil {
		return err
	}
	return file.Truncate(head + int64(len(note)+len(keep)))
}

// lastWords is how much of a worker's standard error an error message may quote, in bytes.
const lastWords = 300

// lastLine gives the end of a worker's standard error for an error message.
func lastLine(path string) string {
	raw, err := tail(path, 4*lastWords)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	if last := firstLine(lines[len(lines)-1]); last != "" {
		return ": " + last
	}
	return ""
}

// crashLog is how much of the end of a worker's standard error is looked through for the beginning of a crash, in bytes.
const crashLog = 256 << 10

// crashCode is the exit code of a program that the Go runtime ends, for a panic or a signal.
const crashCode = 2

// runtimeWords is how the Go runtime says why it ends a program. A panic that the program recovers from and logs may look the same.
var runtimeWords = regexp.MustCompile(`(?m)^(panic: .*|fatal error: .*|SIG[A-Z0-9]+: .*\nPC=)`)

// LastWords is the line with which a worker that ended like this says why in its standard error, as the Go runtime writes it; "" if
// there is none, or if the runtime can't have ended it: then what looks like it is of something else.
func LastWords(path string, status process.Status) string {
	if status.Known && (status.Signal != 0 || status.Code != crashCode) {
		return ""
	}
	raw, err := tail(path, crashLog)
	if err != nil {
		return ""
	}
	found := runtimeWords.FindAll(raw, -1)
	if len(found) == 0 {
		return ""
	}
	return firstLine(string(found[len(found)-1]))
}

// tail reads the last bytes of a file, from the beginning of a line if one begins in them.
func tail(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	at, err := file.Seek(-limit, io.SeekEnd)
	if err != nil { // the file is shorter
		at, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(file, limit))
	if at > 0 {
		if _, rest, ok := bytes.Cut(raw, []byte("\n")); ok && len(rest) > 0 {
			raw = rest
		}
	}
	return raw, err
}

// firstLine makes foreign text fit for an error message.
func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	line = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, line)
	if len(line) > lastWords {
		line = strings.ToValidUTF8(line[:lastWords], "") + "…"
	}
	return line
}
