package pullauth

import (
	"regexp"
	"strings"

	"github.com/distribution/reference"
)

const (
	// dockerHub is the registry of images that name none.
	dockerHub = "docker.io"
	// dockerHubServer is how Docker's own tools name it in a login.
	dockerHubServer = "https://index.docker.io/v1/"
)

var (
	scheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://`)
	// apiPath is a path of the registry's API, as some put it into a login's address; no repositories are below it.
	apiPath = regexp.MustCompile(`^v[12](/|$)`)
)

// parseRegistry takes the address of a registry as people write it: with or without scheme, user and path. It is false for what
// can't be the registry of an image.
func parseRegistry(address string) (host, path string, ok bool) {
	address = strings.TrimSpace(address)
	address = address[len(scheme.FindString(address)):]
	host, path, _ = strings.Cut(address, "/")
	host = host[strings.LastIndexByte(host, '@')+1:]
	// Images tell a registry from a folder of Docker Hub by its dot, its port, or the name localhost.
	named, err := reference.ParseNormalizedNamed(host + "/x/y")
	if err != nil || reference.Path(named) != "x/y" {
		return "", "", false
	}
	path, _, _ = strings.Cut(path, "?")
	if path = strings.Trim(path, "/"); apiPath.MatchString(path) {
		path = ""
	}
	return canonicalHost(reference.Domain(named)), path, true
}

// canonicalHost makes equal what is one server: upper and lower case, https with and without its port, the names of Docker Hub.
func canonicalHost(host string) string {
	host = strings.TrimSuffix(strings.ToLower(host), ":443")
	switch host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com":
		return dockerHub
	}
	return host
}
