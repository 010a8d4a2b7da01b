package k8s

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/signalman-ci/signalman/internal/session/helper"
)

// How the helper comes into main, where it owns the job's shell. Its binary is too large for a Secret or ConfigMap. So main's own
// command waits in bash, with builtins alone, and becomes the helper when that is there; the first exec brings it, and then is the first relay to it.
const (
	// ownFolder is an emptyDir, so it can be written whoever the container's user is, and in a read-only image.
	ownFolder    = "/.signalman"
	helperPath   = ownFolder + "/helper"
	helperFolder = ownFolder + "/run"

	// waitScript is main's command. What it reads from never has anything: that is a pause without a program.
	waitScript = `trap 'exit 0' TERM INT
exec {pause}<> <(:)
until [[ -e ` + ownFolder + `/ready ]]; do read -rt 0.02 -u "$pause" || :; done
exec {pause}>&-
exec ` + helperPath + ` ` + helper.ServeMode + ` ` + helperFolder

	// bringScript puts the helper in place. It asks for it by naming bash's own architecture, and gets a line with its size and the bytes. What
	// head may have read beyond those is nothing: more comes only once it has said that it is ready.
	bringScript = `cd ` + ownFolder + ` || exit 1
if [[ ! -e ready ]]; then
  printf 'send %s\n' "$HOSTTYPE"
  read -r size && head -c "$size" >"new.$$" && [[ $(wc -c <"new.$$") -eq $size ]] && chmod 755 "new.$$" && mv -f "new.$$" helper && : >ready || exit 1
fi
printf 'ready\n'
exec ` + helperPath + ` ` + helper.RelayMode + ` ` + helperFolder

	mostLine = 200
)

// bring puts the helper into main over the streams of an exec of bringScript, after which they are a relay's.
func bring(ctx context.Context, streams io.ReadWriteCloser, binary func(arch string) ([]byte, error)) error {
	defer context.AfterFunc(ctx, func() { _ = streams.Close() })()
	line, err := readLine(streams)
	if err != nil {
		return err
	}
	if arch, ok := strings.CutPrefix(line, "send "); ok {
		content, err := binary(goArch(arch))
		if err != nil {
			return permanentError{err}
		}
		if _, err := fmt.Fprintf(streams, "%d\n", len(content)); err != nil {
			return err
		}
		if _, err := streams.Write(content); err != nil {
			return err
		}
		if line, err = readLine(streams); err != nil {
			return err
		}
	}
	if line != "ready" {
		return permanentError{fmt.Errorf("bash answers %q", line)}
	}
	return nil
}

// permanentError is one that trying again doesn't help against.
type permanentError struct{ error }

// Unwrap gives the error itself.
func (e permanentError) Unwrap() error { return e.error }

// goArch is the name of an architecture that bash names in its own way.
func goArch(bash string) string {
	switch bash {
	case "x86_64":
		return "amd64"
	case "aarch64", "arm64":
		return "arm64"
	default:
		return bash
	}
}

// readLine reads no more than a line.
func readLine(r io.Reader) (string, error) {
	var line []byte
	var one [1]byte
	for {
		if _, err := io.ReadFull(r, one[:]); err != nil {
			return "", err
		}
		if one[0] == '\n' {
			return string(line), nil
		}
		if line = append(line, one[0]); len(line) > mostLine {
			return "", errors.New("a line has no end")
		}
	}
}
