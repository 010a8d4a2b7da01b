package admin

import (
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/signalman-ci/signalman/internal/loopback"
)

// ownHeader marks a request as made by a program that knows this API: no page of a stranger can send it without asking first.
const ownHeader = "X-Signalman"

// securityHeaders go with every answer.
var securityHeaders = map[string]string{
	"Content-Security-Policy":      "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
	"Cache-Control":                "no-store",
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
}

// guard lets those requests through that come from this host's programs or from our own page, and know the token where one is needed.
// It guards against the browser of an operator being made to act for a stranger's page (by a request across origins, a form, or a name
// that is made to stand for this host), and against other users of the host.
type guard struct {
	next *http.ServeMux
	// port is ours; 0 for the socket, which a tunnel may have brought to any port.
	port int
	// open is set where no token is needed; else auth and public decide.
	open   bool
	auth   *auth
	public func(*http.Request) bool
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name, value := range securityHeaders {
		w.Header().Set(name, value)
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	switch {
	case !g.isOwnHost(r.Host):
		refuse(w, http.StatusForbidden, "this is no name of this host on this port; use 127.0.0.1 or localhost, with the same port at both ends of a tunnel")
	case !isOwnOrigin(r):
		refuse(w, http.StatusForbidden, "requests from pages of other origins are refused")
	case changes(r) && !isDeliberate(r):
		refuse(w, http.StatusForbidden, "a request that changes something needs the header %s: 1, or Content-Type: application/json", ownHeader)
	default:
		g.authorized(w, r)
	}
}

func (g *guard) authorized(w http.ResponseWriter, r *http.Request) {
	if !g.open {
		if isSession(r) && r.Method == http.MethodPost {
			g.auth.begin(w, r)
			return
		}
		if !g.public(r) && !g.auth.admit(w, r) {
			return
		}
		if isSession(r) && r.Method == http.MethodDelete {
			g.auth.end(w, r)
			return
		}
	}
	handler, pattern := g.next.Handler(r)
	if pattern == "" {
		answerNothing(w, r, handler)
		return
	}
	g.next.ServeHTTP(w, r)
}

func isSession(r *http.Request) bool { return r.URL.Path == sessionPath }

// isOwnHost tells whether a Host header names this host by an address or name that nobody else has a say in (rebinding of names), and
// our port.
func (g *guard) isOwnHost(host string) bool {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), "80"
	}
	if g.port == 0 {
		return name == socketHost || loopback.IsHost(name)
	}
	return loopback.IsHost(name) && port == strconv.Itoa(g.port)
}

// isOwnOrigin tells whether a request comes from no page at all, or from our own. The Host header has to be known as ours.
func isOwnOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return false
	}
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	u, err := url.Parse(origins[0])
	return len(origins) == 1 && err == nil && u.Scheme == "http" && u.User == nil && u.Path == "" && u.RawQuery == "" && u.Fragment == "" &&
		u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

// changes tells whether a request may change something.
func changes(r *http.Request) bool { return r.Method != http.MethodGet && r.Method != http.MethodHead }

// isDeliberate tells whether a request has what neither a form nor a simple request of a script has.
func isDeliberate(r *http.Request) bool {
	if r.Header.Get(ownHeader) == "1" {
		return true
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == "application/json"
}

// answerNothing says in JSON what the mux says of a path that it doesn't know, or of one that has other methods.
func answerNothing(w http.ResponseWriter, r *http.Request, handler http.Handler) {
	said := &silent{header: http.Header{}, status: http.StatusNotFound}
	handler.ServeHTTP(said, r)
	if allow := said.header.Get("Allow"); allow != "" {
		w.Header().Set("Allow", allow)
		refuse(w, http.StatusMethodNotAllowed, "%.100q takes %s, not %.20s", r.URL.Path, allow, r.Method)
		return
	}
	refuse(w, http.StatusNotFound, "there is nothing at %.100q", r.URL.Path)
}

// silent takes an answer that is not to be sent.
type silent struct {
	header http.Header
	status int
}

func (s *silent) Header() http.Header         { return s.header }
func (s *silent) Write(b []byte) (int, error) { return len(b), nil }
func (s *silent) WriteHeader(status int)      { s.status = status }
