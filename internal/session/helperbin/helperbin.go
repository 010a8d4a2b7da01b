// Package helperbin carries the binary of the helper (internal/session/helper) for containers and pods, which are Linux's whatever
// the worker runs on. "make helper" builds it, as part of "make build"; a worker built without says so.
package helperbin

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
)

//go:embed built
var built embed.FS

// For gives the binary for containers of an architecture, as the engine names it.
func For(arch string) ([]byte, error) {
	binary, err := built.ReadFile("built/helper-linux-" + arch)
	if !errors.Is(err, fs.ErrNotExist) {
		return binary, err
	}
	if others, _ := fs.Glob(built, "built/helper-linux-*"); len(others) > 0 { // the pattern is fine
		return nil, fmt.Errorf("containers of architecture %q are not supported, only amd64 and arm64", arch)
	}
	return nil, errors.New("this worker was built without its helper: build it with make build")
}
