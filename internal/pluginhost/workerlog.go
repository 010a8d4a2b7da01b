package pluginhost

import (
	"bytes"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode"

	"github.com/signalman-ci/signalman/internal/process"
)

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
