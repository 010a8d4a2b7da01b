package plugins

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// headSize is how much of a file tells what it is.
const headSize = 512

// inspect says in one line why a file can't be run as a plugin, or is not to be.
func inspect(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		if target, linkErr := os.Readlink(path); linkErr == nil {
			return fmt.Errorf("it is a symlink that leads nowhere (to %s)", target)
		}
		return withoutPath(err)
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is no file")
	}
	if err := safeFromOthers(path); err != nil {
		return err
	}
	if err := executable(path, info); err != nil {
		return err
	}
	head, err := readHead(path)
	if err != nil {
		return fmt.Errorf("it can't be read: %w", err)
	}
	switch {
	case len(head) == 0:
		return errors.New("it is empty")
	case bytes.HasPrefix(head, []byte("#!")):
		return checkScript(head)
	case isProgram(head):
		return checkMachine(head)
	case looksLikeText(head):
		return errors.New("it is a text file; a script needs #! and its interpreter in the first line")
	default:
		return errors.New("it is neither a program for this system nor a script")
	}
}

func readHead(path string) ([]byte, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, headSize)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return head[:n], nil
}

// checkScript looks for the interpreter: where it is missing, the system's error says that the script is.
func checkScript(head []byte) error {
	line, _, _ := bytes.Cut(head[2:], []byte("\n"))
	if bytes.HasSuffix(line, []byte("\r")) {
		return errors.New("its lines end in \\r\\n, as on Windows, and its interpreter isn't found so; convert it")
	}
	fields := strings.Fields(string(line))
	if len(fields) == 0 {
		return errors.New("its first line, #!, names no interpreter")
	}
	if _, err := os.Stat(fields[0]); err != nil && filepath.IsAbs(fields[0]) {
		return fmt.Errorf("its interpreter isn't there: %s", fields[0])
	}
	return nil
}

func looksLikeText(head []byte) bool {
	if bytes.IndexByte(head, 0) >= 0 {
		return false
	}
	for i := range utf8.UTFMax { // the last character may be cut
		if i < len(head) && utf8.Valid(head[:len(head)-i]) {
			return true
		}
	}
	return false
}
