package pullauth

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/distribution/reference"
)

// Keyring holds the logins of one job. The zero Keyring has none. It may be used by several goroutines.
type Keyring struct {
	logins []login
}

// login is a user's password for one registry, or for a part of it.
type login struct {
	host     string // as canonicalHost gives it
	path     string // the repositories below it are meant; empty: all
	user     string
	password string
}

// For gives what belongs into the header X-Registry-Auth of a pull of image. It is false for an image whose registry no credentials
// name, and for what isn't the name of an image.
func (k Keyring) For(image string) (encodedAuth string, ok bool) {
	l, ok := k.find(image)
	if !ok {
		return "", false
	}
	return l.encode(), true
}

// DockerConfig gives all logins in the form of Docker's config.json, which is that of a Kubernetes Secret for image pulls; false: there is
// none. It holds the passwords.
func (k Keyring) DockerConfig() (content []byte, ok bool) {
	type entry struct {
		Username string `json:"username"`
		Password string `json:"password"`
		Auth     string `json:"auth"`
	}
	auths := map[string]entry{}
	for _, l := range k.logins { // the last one for a registry counts
		where := l.host
		switch {
		case l.host == dockerHub && l.path == "":
			where = dockerHubServer
		case l.path != "":
			where += "/" + l.path
		}
		auths[where] = entry{l.user, l.password, base64.StdEncoding.EncodeToString([]byte(l.user + ":" + l.password))}
	}
	content, _ = json.Marshal(map[string]any{"auths": auths}) // texts can always be marshalled
	return content, len(auths) > 0
}

// User is who the registry of image is told to be asking; false as with For.
func (k Keyring) User(image string) (string, bool) {
	l, ok := k.find(image)
	return printable(l.user), ok
}

// Describe tells in one line for each login, without a newline, which user goes to which registry.
func (k Keyring) Describe() []string {
	lines := make([]string, 0, len(k.logins))
	for _, l := range k.logins {
		where := l.host
		if l.path != "" {
			where += "/" + l.path
		}
		lines = append(lines, fmt.Sprintf("%s: user %s", printable(where), printable(l.user)))
	}
	return lines
}

// Format keeps passwords out of whatever a Keyring is printed to.
func (k Keyring) Format(s fmt.State, _ rune) {
	_, _ = io.WriteString(s, "keyring of "+strconv.Itoa(len(k.logins)))
}

// find prefers the login with the longest path that image is below; else it takes the last one for the registry, as logging in to
// one after the other would.
func (k Keyring) find(image string) (login, bool) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return login{}, false
	}
	host, repository := canonicalHost(reference.Domain(named)), reference.Path(named)
	best, found, bestPath := login{}, false, 0
	for _, l := range k.logins {
		if l.host != host {
			continue
		}
		matched := 0
		if l.path != "" && strings.HasPrefix(repository+"/", l.path+"/") {
			matched = len(l.path)
		}
		if matched >= bestPath {
			best, found, bestPath = l, true, matched
		}
	}
	return best, found
}

// encode gives the Engine's form: JSON in base64's URL alphabet.
func (l login) encode() string {
	server := l.host
	if server == dockerHub {
		server = dockerHubServer
	}
	// Three strings can always be marshalled.
	data, _ := json.Marshal(struct {
		Username      string `json:"username"`
		Password      string `json:"password"`
		ServerAddress string `json:"serveraddress"`
	}{l.user, l.password, server})
	return base64.URLEncoding.EncodeToString(data)
}

// printable is text as it is, or quoted if a terminal could take it for more than text.
func printable(text string) string {
	for _, r := range text {
		if !strconv.IsPrint(r) {
			return strconv.Quote(text)
		}
	}
	return text
}
