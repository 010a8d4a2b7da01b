package connection

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// Explain tells what to do about a request that got no answer, to follow the error in the same line; "" if nothing is known. peer says who
// was asked, such as "the hub".
func Explain(err error, peer string) string {
	if err == nil {
		return ""
	}
	for _, explain := range []func(error, string) string{proxies, certificates, alerts, schemes, network} {
		if hint := explain(err, peer); hint != "" {
			return hint
		}
	}
	return ""
}

// WantsPassword is the advice for a proxy that answers 407.
const WantsPassword = `the proxy wants a user and a password: set proxy to "http://USER:PASSWORD@HOST:PORT"`

// proxies is about the way to and through a proxy.
func proxies(err error, peer string) string {
	if refusal, ok := errors.AsType[*ProxyError](err); ok {
		switch refusal.Code {
		case http.StatusProxyAuthRequired:
			return WantsPassword
		case http.StatusForbidden, http.StatusMethodNotAllowed:
			return "the proxy doesn't allow connections to " + peer + ": have it allowed there, or set proxy or NO_PROXY"
		}
		return "the proxy can't reach " + peer + ": see the proxy's log, or set proxy or NO_PROXY"
	}
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "proxyconnect" && op.Op != "socks connect" {
		return ""
	}
	if strings.Contains(err.Error(), "username/password") || strings.Contains(err.Error(), "no acceptable authentication") {
		return `the proxy wants another user or password: set proxy to "socks5://USER:PASSWORD@HOST:PORT"`
	}
	return "that is the proxy: check proxy, or HTTPS_PROXY in the environment"
}

// certificates is about those of the other side.
func certificates(err error, peer string) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "set ca-file to a file (PEM) with the certificate of the authority that signed " + peer + "'s"
	}
	if wrong, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Sprintf("what answers at %s is another host, or has the wrong certificate: check endpoint", wrong.Host)
	}
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	if !ok || invalid.Reason != x509.Expired || invalid.Cert == nil {
		return ""
	}
	now := time.Now()
	if now.Before(invalid.Cert.NotBefore) {
		return fmt.Sprintf("the certificate begins to hold at %s: check this host's clock", invalid.Cert.NotBefore.UTC().Format(time.DateTime))
	}
	return fmt.Sprintf("the certificate has held until %s: it has to be renewed, unless this host's clock is wrong",
		invalid.Cert.NotAfter.UTC().Format(time.DateTime))
}

// alerts is about what the other side says in the TLS handshake. Its type isn't exported, so that only the words are left.
func alerts(err error, peer string) string {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" {
		return ""
	}
	alert := op.Err.Error()
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(alert, w) {
				return true
			}
		}
		return false
	}
	switch {
	case has("certificate required"):
		return peer + " wants a certificate of the agent: set client-cert and client-key"
	case has("expired certificate", "revoked certificate"):
		return peer + " doesn't take the agent's certificate any more: renew the files of client-cert and client-key"
	case has("bad certificate", "unknown certificate", "unsupported certificate", "access denied", "handshake failure"):
		return peer + " doesn't take the agent's certificate, or wants one: check client-cert and client-key"
	case has("protocol version"):
		return peer + " speaks no version of TLS that is safe (1.2 or later)"
	}
	return ""
}

// schemes is about HTTP where HTTPS is, and the other way.
func schemes(err error, peer string) string {
	text := err.Error()
	if errors.Is(err, http.ErrSchemeMismatch) {
		return peer + " speaks plain HTTP at this port: set no-https, or another port in endpoint"
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return peer + " speaks no TLS at this port: check the port in endpoint, or set no-https"
	}
	if strings.Contains(text, `malformed HTTP response "\x15\x03`) {
		return PlainToTLS(peer)
	}
	return ""
}

// PlainToTLS is the advice for plain HTTP that was spoken to a TLS server.
func PlainToTLS(peer string) string {
	return peer + " speaks HTTPS at this port: take no-https away, or set another port in endpoint"
}

// SaysTLS tells whether the body of an answer is what servers say to plain HTTP at a TLS port.
func SaysTLS(body []byte) bool {
	text := strings.ToLower(string(body))
	for _, words := range []string{
		"client sent an http request to an https server", "plain http request was sent to https port", "speaking plain http to an ssl-enabled",
	} {
		if strings.Contains(text, words) {
			return true
		}
	}
	return false
}

// network is about names and addresses.
func network(err error, peer string) string {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return fmt.Sprintf("there is no host %q: check endpoint, and this host's DNS", dns.Name)
		}
		return "this host's DNS doesn't answer: see /etc/resolv.conf; where only a proxy knows the name, set proxy"
	}
	timeout, ok := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(err.Error(), "actively refused"):
		return "nothing listens there: check host and port in endpoint, and whether " + peer + " runs"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "there is no way to it: check this host's network, or set proxy if there is one"
	case errors.Is(err, context.DeadlineExceeded), ok && timeout.Timeout():
		return "if that stays so, a firewall may be in the way, or a proxy be needed (proxy)"
	}
	return ""
}
