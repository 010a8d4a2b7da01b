package plugins

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"

	"github.com/signalman-ci/signalman/internal/filewatch"
)

// workerFile is a worker's file that is to be launched. One that is held to its checksum stays open meanwhile, so that what is executed is
// what was looked at.
type workerFile struct {
	path    string
	file    *os.File // nil: it isn't held to anything
	sum     string
	stamp   string // as it was before its checksum was made
	settled bool
	script  bool
}

func openFile(path string, sums *Sums) (*workerFile, error) {
	file, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	b := &workerFile{path: path, file: file}
	if b.sum, b.stamp, b.settled, err = sums.of(file); err != nil {
		b.close()
		return nil, err
	}
	var head [2]byte
	_, _ = file.ReadAt(head[:], 0)
	b.script = string(head[:]) == "#!"
	return b, nil
}

// openRegular opens a file, and nothing else: who opens a pipe waits for a writer.
func openRegular(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, withoutPath(err)
	}
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = file.Close()
		return nil, errors.New("it is no file")
	}
	return file, nil
}

func (b *workerFile) close() {
	if b.file != nil {
		_ = b.file.Close()
	}
}

// executable is what to execute in the place of path: this process's open file, also if path leads to another one by then. A script's
// interpreter opens it by its name, and other systems have no such names; there it is confirm alone that finds a change.
func (b *workerFile) executable() string {
	if b.file == nil || b.script || runtime.GOOS != "linux" {
		return ""
	}
	name := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), b.file.Fd())
	if _, err := os.Stat(name); err != nil {
		return ""
	}
	return name
}

// confirm makes sure, when the worker runs and before it has a job, that the file is still what it was when it was looked at.
func (b *workerFile) confirm() error {
	if b.file == nil {
		return nil
	}
	changed := errors.New("its file was changed while it was being started")
	info, err := os.Stat(b.path)
	if err != nil || filewatch.Stamp(info) != b.stamp {
		return changed
	}
	if b.settled {
		return nil
	}
	again, err := openFile(b.path, nil)
	if err != nil {
		return changed
	}
	defer again.close()
	if again.sum != b.sum {
		return changed
	}
	return nil
}

// sumOf is the SHA-256 of what a file holds, in hex.
func sumOf(file *os.File) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(file, 0, 1<<62)); err != nil {
		return "", fmt.Errorf("it can't be read: %w", withoutPath(err))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// withoutPath is an error of a file whose path is said already.
func withoutPath(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return fmt.Errorf("%s: %w", strings.ToLower(pe.Op), pe.Err)
	}
	return err
}
