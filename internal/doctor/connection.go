package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/signalman-ci/signalman/internal/connection"
	"github.com/signalman-ci/signalman/internal/hub"
)

const (
	// reachLimit bounds the question to the hub.
	reachLimit = 20 * time.Second
	// A clock that is wrong by so much is worth a warning, or breaks TLS and tokens.
	clockWarning, clockFailure = 30 * time.Second, 5 * time.Minute
)

// connections looks at all that is between the agent and the hub.
func connections(ctx context.Context, s Settings) []Check {
	checks := certificates(s.Hub.Connection, time.Now())
	s.Hub.Timeouts.Sync = reachLimit
	client, err := hub.New(s.Hub)
	if err != nil {
		return append(checks, Check{"endpoint", Failure, "not asked, as its settings can't be used: " + err.Error(), ""})
	}
	defer client.CloseIdleConnections()
	checks = append(checks, proxy(client))
	probe, err := client.Probe(ctx)
	if err != nil {
		return append(checks, unreached(err))
	}
	checks = append(checks, reached(s.Hub.Endpoint, probe), clock(probe))
	if cert := probe.Certificate; cert != nil {
		checks = append(checks, dated("hub certificate", "the hub's certificate", cert.NotBefore, cert.NotAfter, time.Now(),
			"have it renewed by those who run the hub"))
	}
	return checks
}

// certificates looks at the files of the settings.
func certificates(c connection.Settings, now time.Time) []Check {
	var checks []Check
	if c.CAFile != "" {
		const name = "ca-file"
		authorities, err := c.CACertificates()
		if err != nil {
			checks = append(checks, Check{name, Failure, err.Error(), "set ca-file to a file with certificates in PEM"})
		}
		for _, a := range authorities {
			check := dated(name, fmt.Sprintf("the authority %q in %s", a.Subject, c.CAFile), a.NotBefore, a.NotAfter, now,
				"put the authority's new certificate into the file, beside the old one")
			if check.Status == Failure { // there may be another one in the file that counts
				check.Status = Warning
			}
			checks = append(checks, check)
		}
	}
	if c.ClientCert != "" || c.ClientKey != "" {
		const name = "client-cert"
		cert, err := c.ClientCertificate()
		if err != nil {
			return append(checks, Check{name, Failure, err.Error(), "set client-cert and client-key to a certificate and its key in PEM"})
		}
		checks = append(checks, dated(name, "the agent's certificate in "+c.ClientCert, cert.NotBefore, cert.NotAfter, now,
			"renew the files of client-cert and client-key; the agent takes new ones up by itself"))
	}
	return checks
}

func proxy(client *hub.Client) Check {
	const name = "proxy"
	route, err := client.Route()
	switch {
	case err != nil:
		return Check{name, Failure, err.Error(), `set proxy to a URL such as "http://proxy.example.com:3128", or to "none"`}
	case route.Proxy == "":
		return ok(name, "none (%s)", route.Why)
	}
	return ok(name, "%s (%s)", route.Proxy, route.Why)
}

func unreached(err error) Check {
	c := Check{"endpoint", Failure, err.Error(), "check endpoint, and the way to it"}
	if re, ok := errors.AsType[*hub.RequestError](err); ok && re.Hint != "" {
		c.Message, c.Hint = fmt.Sprintf("cannot %s: %v", re.Op, re.Err), re.Hint
	}
	return c
}

func reached(endpoint string, p hub.Probe) Check {
	c := ok("endpoint", "%s answers after %s", endpoint, p.Took.Round(time.Millisecond))
	switch {
	case p.Code == http.StatusUnauthorized: // as hubs do
	case p.Code == http.StatusProxyAuthRequired, p.Code == http.StatusBadRequest && p.Hint != "":
		c.Status, c.Hint = Failure, p.Hint
		c.Message += fmt.Sprintf(" with %d %s", p.Code, http.StatusText(p.Code))
	case p.Code >= 500:
		c.Status, c.Hint = Warning, "the hub, or something on the way to it, has a problem; the agent waits for its end"
		c.Message += fmt.Sprintf(" with %d %s", p.Code, http.StatusText(p.Code))
	default:
		c.Status, c.Hint = Warning, "check that endpoint is the hub's, and that nothing on the way answers in its place"
		c.Message += fmt.Sprintf(" with %d %s, where a hub answers 401 to a request without a token", p.Code, http.StatusText(p.Code))
	}
	return c
}

func clock(p hub.Probe) Check {
	const name, hint = "clock", "let this host's clock be set by NTP (systemd-timesyncd, chrony)"
	if !p.Dated {
		return Check{name, Warning, "not compared: the hub's answer has no date", ""}
	}
	direction := "behind"
	if p.Ahead < 0 {
		direction = "ahead of"
	}
	// What the margin explains is no fault.
	off := max(p.Ahead.Abs()-p.Margin, 0).Round(time.Second)
	c := ok(name, "it agrees with the hub's")
	if off >= time.Second {
		c.Message = fmt.Sprintf("it is %s %s the hub's", off, direction)
	}
	switch {
	case off > clockFailure:
		c.Status, c.Hint = Failure, hint
	case off > clockWarning:
		c.Status, c.Hint = Warning, hint
	}
	return c
}
