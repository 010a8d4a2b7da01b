package hub

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

const basePath = "/api/v1/self_hosted_agents"

// baseURL checks an endpoint, a bare host[:port], and makes the API's base of
// it. What it refuses it doesn't repeat whole: a URL may hold a password.
func baseURL(endpoint string, noHTTPS bool) (string, error) {
	if endpoint == "" {
		return "", errors.New("the hub's endpoint is missing (write its host, such as example.semaphoreci.com)")
	}
	if _, rest, found := strings.Cut(endpoint, "://"); found {
		return "", fmt.Errorf("the hub's endpoint must not have a scheme (write %s; for http set no-https)", hostHint(rest))
	}
	if strings.ContainsAny(endpoint, "/?#@") {
		return "", fmt.Errorf("the hub's endpoint must be a host with an optional port and nothing else (write %s)", hostHint(endpoint))
	}
	scheme := "https"
	if noHTTPS {
		scheme = "http"
	}
	u, err := url.Parse(scheme + "://" + endpoint)
	if err != nil || u.Host != endpoint || u.Hostname() == "" {
		return "", fmt.Errorf("the hub's endpoint %q isn't a host with an optional port (write it such as example.semaphoreci.com or 10.0.0.1:4000)", endpoint)
	}
	return u.String() + basePath, nil
}

// hostHint picks the host out of what was written, to be shown as a hint.
func hostHint(written string) string {
	if u, err := url.Parse("https://" + strings.TrimLeft(written, "/")); err == nil && u.Host != "" {
		return u.Host
	}
	return "just the host"
}
