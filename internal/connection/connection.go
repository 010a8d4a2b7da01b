// Package connection is how the hub and its log service are reached: which certificate authorities are trusted, with what certificate
// the agent shows who it is, and through which proxy. It also says in a line what to do when that fails (Explain).
//
// It knows nothing of the hub's API; package hub makes its requests over the Transport that is made here.
package connection

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Settings are what a user sets of the connection. The zero value is the system's certificate authorities, no certificate of the agent's
// own, and the proxy that the environment names.
type Settings struct {
	// CAFile has certificates (PEM) of authorities that are trusted beside the system's.
	CAFile string
	// ClientCert and ClientKey are files (PEM) with the agent's own certificate, with what its authority needs, and its key. Both are
	// set, or none. They are read again when they have changed.
	ClientCert, ClientKey string
	// Proxy is a proxy's URL (see CheckProxy), "none", or "" for what the environment says. It may hold a password.
	Proxy string
	// LookupEnv finds the environment variables of proxies; nil is the process's own environment.
	LookupEnv func(string) (string, bool)
}

// IsSet tells whether a user has set anything.
func (s Settings) IsSet() bool {
	return s.CAFile != "" || s.ClientCert != "" || s.ClientKey != "" || s.Proxy != ""
}

// Transport makes a transport of the settings. The files are read now; base, which may be nil, is the TLS configuration that they are
// added to. An error names the file and what is wrong with it.
func (s Settings) Transport(base *tls.Config) (*http.Transport, error) {
	conf, err := s.tlsConfig(base)
	if err != nil {
		return nil, err
	}
	proxy, err := s.proxy()
	if err != nil {
		return nil, err
	}
	return &http.Transport{
		Proxy:                  func(r *http.Request) (*url.URL, error) { return proxy(r.URL) },
		OnProxyConnectResponse: connectAnswer,
		TLSClientConfig:        conf,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           100,
		MaxIdleConnsPerHost:    16,
		// Below the 60 s for which the hub keeps an idle connection, so that
		// it is this side that closes it and no request runs into the end.
		IdleConnTimeout:     50 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second,
	}, nil
}

func (s Settings) tlsConfig(base *tls.Config) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if base != nil {
		conf = base.Clone()
	}
	if s.CAFile != "" {
		pool, err := s.authorities()
		if err != nil {
			return nil, err
		}
		conf.RootCAs = pool
	}
	pair, err := s.keyPair()
	if err != nil {
		return nil, err
	}
	if pair != nil {
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair.current(), nil }
	}
	return conf, nil
}

// ProxyError is a proxy that doesn't let a connection through.
type ProxyError struct {
	// Proxy is the proxy's host and port, Code the HTTP status it answered with.
	Proxy string
	Code  int
}

func (e *ProxyError) Error() string {
	return fmt.Sprintf("the proxy %s answers %d %s", e.Proxy, e.Code, http.StatusText(e.Code))
}

// connectAnswer turns a proxy's refusal into an error with its status, which net/http's own doesn't have.
func connectAnswer(_ context.Context, proxy *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	return &ProxyError{Proxy: proxy.Host, Code: answer.StatusCode}
}
