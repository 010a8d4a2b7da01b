package imagepull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/distribution/reference"
)

// Reason is why a pull failed.
type Reason string

// The reasons that are told apart.
const (
	NotFound     Reason = "not found"     // the registry has no such image, tag or digest
	NoPlatform   Reason = "no platform"   // it has the image, but not for this machine
	BadName      Reason = "bad name"      // no image can have that name
	LoginNeeded  Reason = "login needed"  // no credentials were given, and without them there is nothing to be had
	LoginRefused Reason = "login refused" // user or password are wrong
	Denied       Reason = "denied"        // the user may not pull the image, or it doesn't exist
	RateLimit    Reason = "rate limit"
	Unreachable  Reason = "unreachable"   // no connection to the registry
	PlainHTTP    Reason = "plain http"    // the registry speaks HTTP where the engine wants HTTPS
	Certificate  Reason = "certificate"   // the engine doesn't trust the registry, or TLS fails otherwise
	RegistryDown Reason = "registry down" // it answers with 5xx
	DiskFull     Reason = "disk full"     // the engine's
	Unpack       Reason = "unpack"        // the image's content can't be unpacked
	Engine       Reason = "engine"        // the engine can't be reached, or went away
	Stopped      Reason = "stopped"       // the context of the pull has ended
	Unknown      Reason = "unknown"
)

// Error is a pull that failed, in one line that says what to do.
type Error struct {
	Image  string
	Reason Reason
	text   string
	cause  error
}

func (e *Error) Error() string { return "cannot pull " + e.Image + ": " + e.text }

// Unwrap gives what the Engine or the connection to it said.
func (e *Error) Unwrap() error { return e.cause }

// explanation is how to know a reason by the Engine's words, and what to say about it.
type explanation struct {
	reason Reason
	words  *regexp.Regexp
	// say may have {registry} and {user} in it.
	say string
	// quote adds the Engine's words.
	quote bool
}

// explanations in the order in which they are tried: the Engine wraps what registries, networks and disks say, so a text can have words
// of several. They are matched in lower case, without addresses and without the image's name.
var explanations = []explanation{
	{Engine, words(`docker daemon|error during connect|dial unix|docker_engine`),
		"the Docker engine can't be reached: see whether it runs on this host", true},
	{DiskFull, words(`no space left on device|disk quota exceeded|not enough space on the disk`),
		"the disk of the Docker engine is full: have the host's owner make room there (docker system prune removes what isn't used)", true},
	{RateLimit, words(`toomanyrequests|too many requests|(http|status:?) 429|pull rate limit|rate exceeded`),
		"{registry} limits how many images are pulled: wait, or pull with image pull credentials, for which the limit is higher as a rule", true},
	{PlainHTTP, words(`server gave http response to https client|first record does not look like a tls handshake`),
		"{registry} speaks plain HTTP where the Docker engine wants HTTPS: have the host's owner add it to insecure-registries in the engine's daemon.json", false},
	{PlainHTTP, words(`http request was sent to https port|http request to an https server`),
		"{registry} speaks HTTPS where the Docker engine tries plain HTTP: have the host's owner take it out of insecure-registries in the engine's daemon.json", false},
	{Certificate, words(`x509:|certificate`),
		"the Docker engine doesn't trust the certificate of {registry}: have the host's owner put the CA that signed it into /etc/docker/certs.d", true},
	{Certificate, words(`\btls: `),
		"no encrypted connection to {registry} comes about: see which versions of TLS it speaks, and what is in between", true},
	{Unpack, words(`failed to register layer|failed to extract|error processing tar|filesystem layer verification failed|unexpected commit digest`),
		"the Docker engine can't unpack the image: pull it again, or build it anew", true},
	{NoPlatform, words(`no matching manifest|no match for platform|cannot be used on this platform|does not match the specified platform`),
		"the image isn't there for this machine's platform: build it for that, or run the job on another machine", true},
	{BadName, words(`invalid reference format|repository name must|invalid tag format|invalid checksum digest`),
		"that isn't the name of an image: it has to be like registry.example/team/app:1.0", true},
	// Denied comes with "does not exist", so it is before NotFound.
	{LoginRefused, words(`incorrect username or password|invalid username|authorization token has expired|no basic auth credentials|authentication required|unauthorized|(http|status:?|request to:?) 401`),
		"{registry} doesn't accept the user {user} with this password: correct the image pull credentials", true},
	{Denied, words(`access denied|is denied|\bdenied\b|insufficient_scope|authorization failed|forbidden|(http|status:?) 403`),
		"{registry} doesn't let the user {user} pull it, or has no such image: check the name, and what the user may do", true},
	{Unreachable, words(`no such host|server misbehaving|temporary failure in name resolution`),
		"the name of {registry} isn't known to this host's DNS: check the image's name, and the host's DNS", true},
	{Unreachable, words(`connection refused|no route to host|network is unreachable|connection reset|broken pipe|i/o timeout|timed? ?out|deadline exceeded|request canceled|dial tcp|proxyconnect|\beof\b`),
		"{registry} can't be reached from this host: check its name and port, and the network and proxy of the Docker engine", true},
	{RegistryDown, words(`(http|status:?|request to:?) 5\d\d`),
		"{registry} answers with an error of its own: run the job again when it is well", true},
	{NotFound, words(`manifest unknown|name unknown|not known to registry|not found|does not exist|no such (image|manifest)|(http|status:?) 404`),
		"{registry} has no such image: check name and tag", false},
}

const loginNeeded = "{registry} gives it only with a login, or has no such image: check the name, or give the job image pull credentials for {registry}"

func words(pattern string) *regexp.Regexp { return regexp.MustCompile(pattern) }

// Explain makes an *Error of what the Engine answered to a pull in place of a stream, or of what its client says. nil stays nil.
func (p Pull) Explain(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return &Error{p.name(), Stopped, "it was stopped: " + clean(err.Error()), err}
	}
	text := strings.TrimPrefix(err.Error(), "Error response from daemon: ")
	named, _ := reference.ParseNormalizedNamed(p.Image)
	plain := bare(text, p.Image, named)
	for _, e := range explanations {
		if !e.words.MatchString(plain) {
			continue
		}
		reason, say, quote := e.reason, e.say, e.quote
		if p.User == "" && (reason == LoginRefused || reason == Denied) {
			reason, say, quote = LoginNeeded, loginNeeded, false
		}
		say = strings.NewReplacer("{registry}", registryOf(named), "{user}", printable(p.User)).Replace(say)
		if quote {
			say += " (" + clean(text) + ")"
		}
		return &Error{p.name(), reason, say, err}
	}
	return &Error{p.name(), Unknown, "the Docker engine says: " + clean(text), err}
}

// broken is for a stream that can't be read to its end.
func (p Pull) broken(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return p.Explain(err)
	}
	text := "the Docker engine broke off the pull: see whether it was restarted (" + clean(err.Error()) + ")"
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) && !errors.Is(err, io.ErrUnexpectedEOF) {
		text = fmt.Sprintf("the Docker engine's answer isn't understood: see whether something is between it and the agent (%s)", clean(err.Error()))
	}
	return &Error{p.name(), Engine, text, err}
}

// name is the image's name, fit for a line of text.
func (p Pull) name() string { return clip(printable(p.Image), 200) }

func registryOf(named reference.Named) string {
	switch {
	case named == nil:
		return "the registry"
	case reference.Domain(named) == "docker.io":
		return "Docker Hub"
	default:
		return reference.Domain(named)
	}
}

// bare is text in lower case without addresses and names of the image, which could have any words in them.
func bare(text, image string, named reference.Named) string {
	names := []string{image}
	if named != nil {
		names = append(names, named.Name(), reference.FamiliarName(named), reference.Path(named))
	}
	kept := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '"' || r == '\n' || r == '\t' })
	fields := kept[:0]
	for _, field := range kept {
		if !isName(strings.Trim(field, "',;()"), names) {
			fields = append(fields, field)
		}
	}
	return strings.ToLower(strings.Join(fields, " "))
}

func isName(field string, names []string) bool {
	if strings.Contains(field, "://") {
		return true
	}
	for _, name := range names {
		rest, ok := strings.CutPrefix(field, name)
		// A colon at the end is the text's, not that of a tag.
		if ok && (rest == "" || len(rest) > 1 && (rest[0] == ':' || rest[0] == '@')) {
			return true
		}
	}
	return false
}

var address = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://[^\s"'<>]+`)

// clean makes one short line of a text that comes from elsewhere. Addresses lose what could be a key: user and query.
func clean(text string) string {
	text = address.ReplaceAllStringFunc(text, func(found string) string {
		u, err := url.Parse(found)
		if err != nil {
			return "(address)"
		}
		u.User, u.RawQuery, u.Fragment, u.ForceQuery = nil, "", "", false
		return u.String()
	})
	return clip(printable(strings.Join(strings.Fields(text), " ")), 300)
}

// printable is text without what a terminal could take for more than text.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, text)
}

func clip(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}
