//go:build linux || darwin

package session

import (
	"bufio"
	"errors"
	"io"
	"strconv"
	"strings"
)

// The driver's file descriptors in the shell. Scripts rarely use such high ones; both are closed while one runs.
const (
	commandsFD = 62 // names of command files, one a line
	statusesFD = 63 // a status line for each command, and one first of all, when the profile has been read
)

// driver is what the shell runs; TOKEN stands for the token of its status lines. How it is built:
//
//   - The status is printed by the condition of the inner loop, before the next name is read. So a command that says
//     "continue" or "break" outside a loop of its own, which in a sourced file means the driver's, is answered as well.
//   - Conditions are exempt from set -e; the sourced file is not.
//   - While the driver's own lines run, set -x and set -v are off; the status line tells which were on, and the next
//     command's file begins by setting them again (see scriptPrefix).
//   - read has a time-out of its own (68 years), or else TMOUT would be it; TMOUT may be read-only, set by an
//     administrator.
//   - Without /dev/null the status can't be printed: better to end the shell, so that the command ends.
//   - Quoted builtins are found whatever aliases and functions the user's files define.
const driver = `\builtin set +Hm
\builtin unset HISTFILE TMOUT PROMPT_COMMAND BASH_EXECUTION_STRING
while \builtin :; do
while
  { \builtin printf '\n%s %d %s\n' TOKEN "$?" "$-" >&63; \builtin set +xv; } >/dev/null 2>&1 || \builtin exit 1
  IFS= \builtin read -r -t 2147483647 -u 62 __signalman || \builtin exit
do
  \builtin . "$__signalman" 62<&- 63>&-
done
done`

// A status is what the driver says of a command that has ended.
type status struct {
	code  int
	flags string // the shell's option letters, $-
}

// scriptPrefix goes before a command's first line, on the same line so that line numbers stay right. It is empty unless
// the shell's options, as they were told last, have set -x or set -v.
func (s status) scriptPrefix() string {
	var options string
	for _, letter := range []string{"x", "v"} {
		if strings.Contains(s.flags, letter) {
			options += letter
		}
	}
	if options == "" {
		return ""
	}
	return `\builtin set -` + options + "; "
}

// readStatuses hands on each status line that bears the token, until r ends. Anything else that a command may have
// written there is passed over, however long it is.
func readStatuses(r io.Reader, token string, handOn func(status)) {
	lines := bufio.NewReaderSize(r, 256) // longer than any status line
	for {
		line, err := lines.ReadSlice('\n')
		if s, ok := parseStatus(string(line), token); ok {
			handOn(s)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

func parseStatus(line, token string) (status, bool) {
	fields := strings.Split(strings.TrimSuffix(line, "\n"), " ")
	if len(fields) != 3 || fields[0] != token {
		return status{}, false
	}
	code, err := strconv.Atoi(fields[1])
	if err != nil {
		return status{}, false
	}
	return status{code: code, flags: fields[2]}, true
}
