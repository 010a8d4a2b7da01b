// Package regtoken is where the registration token comes from: the settings themselves, a file, or a command. The token is asked for
// at each registration, so that a file or a command may give another one each time.
//
// No error, text form or log line of this package holds a token.
package regtoken

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// largest is how much a file or a command may give, in bytes.
const largest = 64 << 10

// Source gives the registration token. The zero value gives an error. It is safe for concurrent use.
type Source struct {
	text    string
	path    string
	command string
	environ []string
}

// Text is a token as it is.
func Text(token string) Source { return Source{text: token} }

// File reads the token from a file, anew each time; white space around it doesn't count.
func File(path string) Source { return Source{path: path} }

// Command runs a command line as a user types it, by bash, or by sh where there is none, and takes what it prints. environ is the
// environment of the caller (NAME=value); the command has it less what systemd gives to the service alone.
func Command(line string, environ []string) Source {
	return Source{command: line, environ: commandEnv(environ)}
}

// Token gives the token. It takes 30 seconds at most. The error is one line.
func (s Source) Token(ctx context.Context) (string, error) {
	switch {
	case s.path != "":
		return s.fromFile()
	case s.command != "":
		return s.fromCommand(ctx)
	case s.text == "":
		return "", errors.New("there is no registration token; set token, token-file or token-command")
	}
	return s.text, nil
}

// Key tells sources apart: it is the token itself, the path of the file, or the command line. So it is a secret, but one that stays
// the same while a file's content changes.
func (s Source) Key() string {
	switch {
	case s.path != "":
		return "file:" + s.path
	case s.command != "":
		return "command:" + s.command
	}
	return s.text
}

// String names the source, without the token.
func (s Source) String() string {
	switch {
	case s.path != "":
		return "the file " + s.path + " (token-file)"
	case s.command != "":
		return "the command of token-command"
	}
	return "the settings (token)"
}

// Format keeps the token out of all verbs of fmt.
func (s Source) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// Check refuses what can't be a registration token, without repeating it.
func Check(token string) error {
	if strings.ContainsAny(token, "\r\n") {
		return errors.New("the token has more than one line")
	}
	for _, r := range token {
		if r <= ' ' || r > '~' {
			return errors.New("the token holds a space or another character that no token has")
		}
	}
	return nil
}

func (s Source) fromFile() (string, error) {
	token, err := readToken(s.path)
	if err != nil {
		if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
			err = pathErr.Err
		}
		return "", fmt.Errorf("cannot read the registration token from %s (token-file): %w", s.path, err)
	}
	return token, nil
}

func readToken(path string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular(): // a pipe could wait for ever
		return "", errors.New("it is no regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, largest+1))
	if err != nil {
		return "", err
	}
	return clean(raw)
}

// clean makes a token of what a file or a command gave.
func clean(raw []byte) (string, error) {
	if len(raw) > largest {
		return "", fmt.Errorf("there are more than %d KiB of it, which is no token", largest>>10)
	}
	token := strings.TrimSpace(string(raw))
	if token == "" {
		return "", errors.New("it is empty")
	}
	return token, Check(token)
}

// Exposed tells whether all users of the host can read a file that holds a secret, or put another one in its place, in a line that
// says what to do; "" if they can't, and where that can't be told by its mode.
func Exposed(path string) string {
	if runtime.GOOS == "windows" {
		return ""
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o006 == 0 {
		return ""
	}
	shown, err := filepath.Abs(path)
	if err != nil {
		shown = path
	}
	can := "read"
	if info.Mode().Perm()&0o002 != 0 {
		can = "change"
	}
	return fmt.Sprintf("every user of this host can %s %s, which holds a secret (mode %04o); chmod it to 0600, or to 0640 with a group of its own",
		can, shown, info.Mode().Perm())
}
