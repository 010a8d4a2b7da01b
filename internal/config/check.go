package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/signalman-ci/signalman/internal/connection"
	"github.com/signalman-ci/signalman/internal/loopback"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const longestName = 80

var (
	goodName      = regexp.MustCompile(`^[a-zA-Z0-9_/+-]{1,80}$`)
	goodHost      = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)
	goodUUID      = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	goodUser      = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_.-]*\$?|[0-9]+)$`)
	goodExecutor  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	goodNamespace = regexp.MustCompile(`^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$`)
	goodLabelKey  = regexp.MustCompile(`^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$`)
	goodLabel     = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$`)
	stsHost       = regexp.MustCompile(`^sts(-fips)?(\.[a-z0-9-]+)*\.amazonaws\.com(\.cn)?$`)
)

func isURL(name string) bool {
	if strings.Contains(name, "://") {
		return true
	}
	u, err := url.Parse(name)
	return err == nil && u.Host != ""
}

// checkName doesn't repeat a URL in its errors: a pre-signed one is a credential.
func checkName(name string) error {
	switch {
	case isURL(name):
		if !isPresignedIdentity(name) {
			return errors.New("a name can't be a URL, unless it is a pre-signed one of AWS STS GetCallerIdentity")
		}
	case len(name) > longestName:
		return fmt.Errorf("it has %d characters; %d are allowed", len(name), longestName)
	case !goodName.MatchString(name):
		return fmt.Errorf("%q has characters that aren't allowed in a name; allowed are a-z A-Z 0-9 - _ / +", name)
	}
	return nil
}

func isPresignedIdentity(name string) bool {
	u, err := url.Parse(name)
	if err != nil {
		return false
	}
	q := u.Query()
	return u.Scheme == "https" && stsHost.MatchString(u.Host) &&
		q.Get("Action") == "GetCallerIdentity" && q.Get("X-Amz-Signature") != ""
}

func showName(name string) string {
	if isURL(name) {
		name = hidden
	}
	return tomlQuote(name)
}

func checkEndpoint(endpoint string) error {
	if scheme, rest, ok := strings.Cut(endpoint, "://"); ok {
		host, _, _ := strings.Cut(rest, "/")
		hint := fmt.Sprintf("write the host alone%s", suggestHost(host))
		if scheme == "http" {
			hint += ", and set no-https"
		}
		return fmt.Errorf("it must be a host or host:port, without a scheme (%s://); %s", scheme, hint)
	}
	if host, _, ok := strings.Cut(endpoint, "/"); ok {
		return fmt.Errorf("it must be a host or host:port, without a path; write the host alone%s", suggestHost(host))
	}
	if !isHostPort(endpoint) {
		return fmt.Errorf("%q is not a host or host:port, such as \"example.semaphoreci.com\"", endpoint)
	}
	return nil
}

func suggestHost(host string) string {
	if !isHostPort(host) {
		return ""
	}
	return fmt.Sprintf(": %q", host)
}

func isHostPort(s string) bool {
	isHost := func(h string) bool { return goodHost.MatchString(h) || net.ParseIP(h) != nil }
	if isHost(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")) {
		return true
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || !isHost(host) {
		return false
	}
	n, err := strconv.Atoi(port)
	return err == nil && n >= 1 && n <= 65535
}

func checkHost(host string) error {
	if !goodHost.MatchString(host) && net.ParseIP(host) == nil {
		return fmt.Errorf("%q is not a host's name or address; the port is an option of its own", host)
	}
	return nil
}

func checkNamespace(name string) error {
	if !goodNamespace.MatchString(name) {
		return fmt.Errorf("%q can't begin the names of metrics; allowed are letters, digits, '-', '_', and '.' between them", name)
	}
	return nil
}

var goodKubernetesName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// checkKubernetesNamespace takes "" too: none is set.
func checkKubernetesNamespace(name string) error {
	if name != "" && !goodKubernetesName.MatchString(name) {
		return fmt.Errorf("%q can't be a namespace; allowed are a-z, 0-9 and '-' between them, 63 characters at most", name)
	}
	return nil
}

// checkListen takes "" too: none.
func checkListen(address string) error {
	if address == "" {
		return nil
	}
	return loopback.Check(address)
}

func checkEnvName(name string) error {
	if !protocol.ValidEnvName(name) {
		return fmt.Errorf("%q is not the name of an environment variable", name)
	}
	return nil
}

func checkJobID(id string) error {
	if !goodUUID.MatchString(id) {
		return fmt.Errorf("%q is not a job's id, which is a UUID", id)
	}
	return nil
}

func checkUser(name string) error {
	if !goodUser.MatchString(name) {
		return fmt.Errorf("%q is not the name of a user", name)
	}
	return nil
}

func checkExecutor(name string) error {
	if !goodExecutor.MatchString(name) {
		return fmt.Errorf("%q is not the name of an executor; allowed are letters, digits, '-', '_' and '.'", name)
	}
	return nil
}

// checkFileGlob is checkGlob for files, whose names may hold anything.
func checkFileGlob(glob string) error {
	if _, err := path.Match(glob, ""); err != nil {
		return fmt.Errorf("%q is neither a file's name or path nor a glob, such as \"*.pem\"", glob)
	}
	return nil
}

func checkGlob(glob string) error {
	if _, err := path.Match(glob, ""); err != nil || strings.Contains(glob, "=") {
		return fmt.Errorf("%q is neither a variable's name nor a glob, such as \"LC_*\"", glob)
	}
	return nil
}

// parseEnvVar doesn't repeat its text in errors: it may be part of a password.
func parseEnvVar(s string) (EnvVar, error) {
	name, v, ok := strings.Cut(s, "=")
	if !ok {
		return EnvVar{}, errors.New("it isn't VAR=VALUE (a value with a comma in it needs a TOML array or table)")
	}
	if !protocol.ValidEnvName(name) {
		return EnvVar{}, errors.New("what stands before the \"=\" isn't the name of an environment variable")
	}
	if strings.ContainsRune(v, 0) {
		return EnvVar{}, fmt.Errorf("the value of %s holds a NUL byte", name)
	}
	return EnvVar{Name: name, Value: Secret(v)}, nil
}

func parseFile(s string) (File, error) {
	i := strings.LastIndex(s, ":")
	if i < 0 {
		return File{}, fmt.Errorf("%q isn't /path/on/host:/path/in/container", s)
	}
	f := File{Host: s[:i], Container: s[i+1:]}
	if !filepath.IsAbs(f.Host) || !path.IsAbs(f.Container) {
		return File{}, fmt.Errorf("%q isn't /path/on/host:/path/in/container; both paths must be absolute", s)
	}
	return f, nil
}

func parseRegexp(s string) (*regexp.Regexp, error) {
	if s == "" {
		return nil, errors.New("it is empty")
	}
	re, err := regexp.Compile(s)
	if err != nil {
		return nil, fmt.Errorf("%q is not a regular expression: %s", s, strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return re, nil
}

// proxy is a proxy's URL, whose user and password aren't shown.
func proxy(field func(*Config) *Secret) value {
	v := secret(field, connection.CheckProxy)
	v.show = func(c *Config) string { return tomlQuote(connection.ShowProxy(field(c).Reveal())) }
	return v
}

// labels is the value of kubernetes-labels.
func labels(field func(*Config) *map[string]string) value {
	return value{
		wants: "a list of KEY=VALUE: an array of texts, one text with commas, or a table",
		list:  true,
		table: true,
		set: func(c *Config, in input) error {
			all := map[string]string{}
			for i, item := range in.list() {
				k, v, ok := strings.Cut(item, "=")
				if !ok || !goodLabelKey.MatchString(k) || !goodLabel.MatchString(v) {
					return fmt.Errorf("item %d: %q is not a Kubernetes label, KEY=VALUE", i+1, item)
				}
				all[k] = v
			}
			*field(c) = all
			return nil
		},
		show: func(c *Config) string {
			items := []string{}
			for _, k := range slices.Sorted(maps.Keys(*field(c))) {
				items = append(items, tomlQuote(k+"="+(*field(c))[k]))
			}
			return "[" + strings.Join(items, ", ") + "]"
		},
		get: func(c *Config) any { return *field(c) },
	}
}

// envVars is the value of env-vars.
func envVars(field func(*Config) *[]EnvVar) value {
	v := many(field, parseEnvVar, func(e EnvVar) string { return e.Name + "=" + e.Value.String() })
	v.wants = "a list of VAR=VALUE: an array of texts, one text with commas, or a table"
	v.table = true
	return v
}

// logLevel takes the names that the existing agent knows, too.
func logLevel(field func(*Config) *string) value {
	words := []string{"trace", "debug", "info", "warn", "error", "off"}
	others := map[string]string{"warning": "warn", "fatal": "error", "panic": "error"}
	parse := func(s string) (string, error) {
		level := strings.ToLower(s)
		if other, ok := others[level]; ok {
			level = other
		}
		if !slices.Contains(words, level) {
			return "", fmt.Errorf("%q is not allowed; it must be one of %s", s, strings.Join(words, ", "))
		}
		return level, nil
	}
	return single(field, parse, tomlQuote)
}
