package connection

import (
	"errors"
	"net"
	"net/url"
	"os"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// NoProxy is the Proxy of Settings that uses none, whatever the environment says.
const NoProxy = "none"

// CheckProxy refuses what can't be the setting of a proxy: "" or "none", or a URL of scheme http, https, socks5 or socks5h with a host,
// perhaps a port, and perhaps user and password. The error doesn't repeat the URL, which may hold a password.
func CheckProxy(proxy string) error {
	_, err := parseProxy(proxy)
	return err
}

// parseProxy gives nil for what is no URL of a proxy.
func parseProxy(proxy string) (*url.URL, error) {
	if proxy == "" || proxy == NoProxy {
		return nil, nil //nolint:nilnil // none is set
	}
	const hint = `write it such as "http://proxy.example.com:3128", or "none"`
	scheme, _, found := strings.Cut(proxy, "://")
	if !found {
		return nil, errors.New("the proxy has no scheme; " + hint)
	}
	switch strings.ToLower(scheme) {
	case "http", "https", "socks5", "socks5h":
	default:
		return nil, errors.New("the proxy's scheme must be http, https, socks5 or socks5h; " + hint)
	}
	u, err := url.Parse(proxy)
	switch {
	case err != nil:
		return nil, errors.New("the proxy isn't a URL (special characters of a password are written as %XX); " + hint)
	case u.Hostname() == "":
		return nil, errors.New("the proxy has no host; " + hint)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the proxy's URL must end after host and port; " + hint)
	}
	return u, nil
}

// ShowProxy is the setting of a proxy without user and password.
func ShowProxy(proxy string) string {
	u, err := parseProxy(proxy)
	switch {
	case err != nil: // anything may stand in there
		return "[hidden]"
	case u == nil || u.User == nil:
		return proxy
	}
	u.User = nil
	return strings.Replace(u.String(), "://", "://[hidden]@", 1)
}

// proxy gives the function that chooses the proxy for a URL. The rules are net/http's: none for localhost and loopback addresses, nor
// for what NO_PROXY lists.
func (s Settings) proxy() (func(*url.URL) (*url.URL, error), error) {
	u, err := parseProxy(s.Proxy)
	switch {
	case err != nil:
		return nil, err
	case s.Proxy == NoProxy:
		return func(*url.URL) (*url.URL, error) { return nil, nil }, nil //nolint:nilnil // as net/http has it
	}
	conf := &httpproxy.Config{
		HTTPProxy: s.env("HTTP_PROXY"), HTTPSProxy: s.env("HTTPS_PROXY"), NoProxy: s.env("NO_PROXY"),
	}
	if u != nil {
		conf.HTTPProxy, conf.HTTPSProxy = u.String(), u.String()
	}
	return conf.ProxyFunc(), nil
}

// env finds a variable in upper case, else in lower case.
func (s Settings) env(name string) string {
	lookup := s.LookupEnv
	if lookup == nil {
		lookup = os.LookupEnv
	}
	if v, _ := lookup(name); v != "" {
		return v
	}
	v, _ := lookup(strings.ToLower(name))
	return v
}

// Route tells how a URL is reached.
type Route struct {
	// Proxy is the proxy without user and password; "" if there is none in between.
	Proxy string
	// Why says which setting or rule it follows from.
	Why string
}

// Route tells through which proxy a URL (scheme and host) is reached. An error is one of the settings or of the environment.
func (s Settings) Route(target string) (Route, error) {
	u, err := url.Parse(target)
	if err != nil {
		return Route{}, errors.New("cannot tell the way to what isn't a URL")
	}
	choose, err := s.proxy()
	if err != nil {
		return Route{}, err
	}
	proxy, err := choose(u)
	if err != nil {
		return Route{}, err
	}
	named := "HTTPS_PROXY"
	if u.Scheme == "http" {
		named = "HTTP_PROXY"
	}
	fromEnv := s.env(named)
	switch set := s.Proxy != "" || fromEnv != ""; {
	case proxy != nil && s.Proxy != "":
		return Route{Proxy: ShowProxy(proxy.String()), Why: "proxy"}, nil
	case proxy != nil:
		return Route{Proxy: ShowProxy(proxy.String()), Why: named + " in the environment"}, nil
	case s.Proxy == NoProxy:
		return Route{Why: "proxy is none"}, nil
	case !set:
		return Route{Why: "neither proxy nor " + named + " is set"}, nil
	case isLoopback(u.Hostname()):
		return Route{Why: "loopback addresses are reached without"}, nil
	case s.Proxy == "" && !isURL(fromEnv):
		return Route{Why: named + " in the environment isn't the URL of a proxy and doesn't count"}, nil
	default:
		return Route{Why: "NO_PROXY in the environment lists the host"}, nil
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// isURL tells whether net/http takes a variable for a proxy: a URL, or host and port.
func isURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		u, err = url.Parse("http://" + text)
	}
	return err == nil && u.Host != ""
}
