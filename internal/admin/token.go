package admin

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/signalman-ci/signalman/internal/jobdir"
)

// tokenName is the file in the state folder, leastToken the length below which nothing is taken for a token.
const (
	tokenName  = "admin-token"
	leastToken = 16
)

// ErrNoToken says that a state folder has no token yet.
var ErrNoToken = errors.New("there is no token yet: it is made when a supervisor starts with this state folder")

// ReadToken gives the token of a state folder; ErrNoToken if there is none.
func ReadToken(stateDir string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(stateDir, tokenName))
	token := strings.TrimSpace(string(raw))
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && token == "":
		return "", ErrNoToken
	case err != nil:
		return "", fmt.Errorf("cannot read the admin token: %w", err)
	case len(token) < leastToken:
		return "", fmt.Errorf("the token in %s is too short: remove the file, and a new one is made at the next start", filepath.Join(stateDir, tokenName))
	}
	return token, nil
}

// MakeToken gives the token of a state folder, and makes it if there is none. The caller owns the folder.
func MakeToken(stateDir string) (string, error) {
	token, err := ReadToken(stateDir)
	if !errors.Is(err, ErrNoToken) {
		return token, err
	}
	token = rand.Text() + rand.Text()
	return token, jobdir.WriteFile(filepath.Join(stateDir, tokenName), []byte(token+"\n"))
}
