package hub

import (
	"cmp"
	"crypto/tls"
	"errors"
	"net/http"
	"time"

	"github.com/signalman-ci/signalman/internal/connection"
)

// Options is what a [Client] is made of.
type Options struct {
	// Endpoint is the hub's host, with a port if need be: no scheme, no path.
	Endpoint string
	// NoHTTPS talks plain HTTP to the hub. The log service's URL comes whole
	// and isn't affected.
	NoHTTPS bool
	// UserAgent is sent with every request, as product/version. Required.
	UserAgent string
	// HTTPClient replaces the default one; it is copied, and the copy follows
	// no redirects. With a transport that isn't an [*http.Transport] every
	// request without an answer counts as sent (see [Ambiguous]).
	HTTPClient *http.Client
	// TLS and Connection configure the default HTTP client, for the hub and for
	// the log service. They can't go with HTTPClient. The files that Connection
	// names are read by New, so that a new client has what is in them by then.
	TLS        *tls.Config
	Connection connection.Settings
	// Timeouts bound the calls, from dial to the last byte of the answer.
	Timeouts Timeouts
	// MaxJobSize is the largest job request taken, in bytes. 64 MiB if 0.
	MaxJobSize int64
}

// Timeouts bound single calls. A zero field stands for the default. A shorter
// deadline of the caller's context wins.
type Timeouts struct {
	Register        time.Duration // 30 s
	Sync            time.Duration // 30 s
	GetJob          time.Duration // 60 s: the payload may be large and can be had once
	RefreshLogToken time.Duration // 30 s
	Disconnect      time.Duration // 30 s
	PushLog         time.Duration // 25 s: the service reads for 5 s and handles for 20 s
}

func (t Timeouts) withDefaults() Timeouts {
	const usual = 30 * time.Second
	return Timeouts{
		Register:        cmp.Or(t.Register, usual),
		Sync:            cmp.Or(t.Sync, usual),
		GetJob:          cmp.Or(t.GetJob, 2*usual),
		RefreshLogToken: cmp.Or(t.RefreshLogToken, usual),
		Disconnect:      cmp.Or(t.Disconnect, usual),
		PushLog:         cmp.Or(t.PushLog, 25*time.Second),
	}
}

// httpClient gives the client to use and whether its transport tells of
// connections through httptrace.
func (o Options) httpClient() (client *http.Client, traced bool, err error) {
	c := http.Client{}
	switch {
	case o.HTTPClient == nil:
		transport, err := o.Connection.Transport(o.TLS)
		if err != nil {
			return nil, false, err
		}
		c.Transport = transport
	case o.TLS != nil || o.Connection.IsSet():
		return nil, false, errors.New("TLS and Connection can't go with HTTPClient (configure its transport)")
	default:
		c = *o.HTTPClient
	}
	// A redirect would carry a token to wherever the answer points.
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	switch c.Transport.(type) {
	case nil, *http.Transport:
		traced = true
	}
	return &c, traced, nil
}
