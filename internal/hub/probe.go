package hub

import (
	"context"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/signalman-ci/signalman/internal/connection"
)

// OpProbe is the call of [Client.Probe].
const OpProbe Op = "reach the hub"

// Probe is what an answer of the hub's host tells of it.
type Probe struct {
	// Code is the answer's status; a hub's is 401.
	Code int
	// Took is from the request's start to the answer.
	Took time.Duration
	// Ahead is how far the other side's clock is ahead of this host's, give or
	// take Margin; Dated is false if the answer has no date.
	Ahead, Margin time.Duration
	Dated         bool
	// Certificate is the other side's; nil without TLS.
	Certificate *x509.Certificate
	// Hint says what to do about the answer, if that is known.
	Hint string
}

// Probe asks the hub for a sync without a token, which any hub refuses and
// which changes nothing there. Any answer is a success.
func (c *Client) Probe(ctx context.Context) (Probe, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeouts.Sync)
	defer cancel()
	var connected atomic.Pointer[time.Time]
	traceCtx := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(new(time.Now())) },
	})
	req, err := http.NewRequestWithContext(traceCtx, http.MethodPost, c.base+"/sync", http.NoBody)
	if err != nil {
		return Probe{}, &RequestError{Op: OpProbe, Err: withoutURL(err)}
	}
	req.Header.Set("User-Agent", c.userAgent)
	began := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		return Probe{}, c.unanswered(ctx, OpProbe, connected.Load() != nil, err)
	}
	defer resp.Body.Close()
	asked, answered := began, time.Now()
	if at := connected.Load(); at != nil {
		asked = *at
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // it is for a hint only
	p := Probe{Code: resp.StatusCode, Took: answered.Sub(began), Hint: statusHint(OpProbe, resp.StatusCode, body)}
	if resp.TLS != nil && len(resp.TLS.PeerCertificates) > 0 {
		p.Certificate = resp.TLS.PeerCertificates[0]
	}
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		p.Dated = true
		// The date was made between the two, and has no fractions of a second.
		half := answered.Sub(asked) / 2
		p.Ahead, p.Margin = at.Add(time.Second/2).Sub(asked.Add(half)), half+time.Second/2
	}
	return p, nil
}

// Route tells how the hub is reached.
func (c *Client) Route() (connection.Route, error) { return c.connection.Route(c.base) }
