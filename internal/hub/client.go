package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/signalman-ci/signalman/internal/connection"
)

// Client makes an agent's calls to the hub and the log service. It holds no
// agent's tokens, so one serves all agents of a process. Its methods are safe
// for concurrent use; each makes one request and returns a [*RequestError], a
// [*StatusError] or an [*AnswerError] if it fails.
type Client struct {
	base       string
	userAgent  string
	http       *http.Client
	traced     bool
	timeouts   Timeouts
	maxJobSize int64
	connection connection.Settings
}

// New checks the options and makes a client. It doesn't talk to the hub.
func New(o Options) (*Client, error) {
	base, err := baseURL(o.Endpoint, o.NoHTTPS)
	if err != nil {
		return nil, err
	}
	if o.UserAgent == "" {
		return nil, errors.New("the hub client needs a user agent, as product/version")
	}
	client, traced, err := o.httpClient()
	if err != nil {
		return nil, err
	}
	maxJobSize := o.MaxJobSize
	if maxJobSize <= 0 {
		maxJobSize = 64 << 20
	}
	return &Client{
		base:       base,
		userAgent:  o.UserAgent,
		http:       client,
		traced:     traced,
		timeouts:   o.Timeouts.withDefaults(),
		maxJobSize: maxJobSize,
		connection: o.Connection,
	}, nil
}

// CloseIdleConnections closes connections that no request uses.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }

// Register makes the agent known to the hub. The agent goes by the name in the
// answer from here on.
func (c *Client) Register(ctx context.Context, registrationToken string, r RegisterRequest) (RegisterResponse, error) {
	wire := struct {
		Name                    string `json:"name"`
		Version                 string `json:"version"`
		PID                     int    `json:"pid"`
		OS                      string `json:"os"`
		Arch                    string `json:"arch"`
		Hostname                string `json:"hostname"`
		SingleJob               bool   `json:"single_job"`
		IdleTimeout             int64  `json:"idle_timeout"`
		InterruptionGracePeriod int64  `json:"interruption_grace_period"`
		JobID                   string `json:"job_id,omitempty"`
	}{
		r.Name, r.Version, r.PID, r.OS, r.Arch, r.Hostname, r.SingleJob,
		int64(r.IdleTimeout / time.Second), int64(r.InterruptionGracePeriod / time.Second), r.JobID,
	}
	body, err := c.hubCall(ctx, call{
		op: OpRegister, method: http.MethodPost, token: registrationToken, timeout: c.timeouts.Register,
	}, "/register", wire)
	if err != nil {
		return RegisterResponse{}, err
	}
	var answer RegisterResponse
	if err := json.Unmarshal(body, &answer); err != nil {
		return RegisterResponse{}, &AnswerError{Op: OpRegister, Err: err}
	}
	if answer.Name == "" || answer.Token == "" {
		return RegisterResponse{}, &AnswerError{Op: OpRegister, Err: errors.New("it has no name or no token")}
	}
	return answer, nil
}

// Sync tells the hub the agent's state and returns what it wants done.
func (c *Client) Sync(ctx context.Context, accessToken string, r SyncRequest) (SyncResponse, error) {
	body, err := c.hubCall(ctx, call{
		op: OpSync, method: http.MethodPost, token: accessToken, timeout: c.timeouts.Sync,
	}, "/sync", r)
	if err != nil {
		return SyncResponse{}, err
	}
	answer, err := parseSync(body)
	if err != nil {
		return SyncResponse{}, &AnswerError{Op: OpSync, Err: err}
	}
	return answer, nil
}

func parseSync(body []byte) (SyncResponse, error) {
	var wire struct {
		Action         Action         `json:"action"`
		JobID          string         `json:"job_id"`
		ShutdownReason ShutdownReason `json:"shutdown_reason"`
		NextSyncAfter  int64          `json:"next_sync_after"` // ms
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return SyncResponse{}, err
	}
	if !wire.Action.Valid() {
		return SyncResponse{}, fmt.Errorf("unknown action %.40q", wire.Action)
	}
	if wire.Action == ActionRunJob && wire.JobID == "" {
		return SyncResponse{}, errors.New("run-job without a job_id")
	}
	return SyncResponse{
		Action:         wire.Action,
		JobID:          wire.JobID,
		ShutdownReason: wire.ShutdownReason,
		NextSyncAfter:  syncPause(wire.NextSyncAfter),
	}, nil
}

func syncPause(ms int64) time.Duration {
	if ms <= 0 {
		return 3*time.Second + rand.N(3*time.Second)
	}
	return time.Duration(min(ms, MaxSyncPause.Milliseconds())) * time.Millisecond
}

// GetJob fetches the request of a job that this agent was told to run, as JSON
// of any type, otherwise unchecked. The hub gives it out whole only once, so an
// [*AnswerError] (broken off, too large, no JSON) isn't mended by asking again.
//
// On a kept connection that turns out closed net/http itself repeats a GET;
// what came is then possibly the hub's sanitised second answer.
func (c *Client) GetJob(ctx context.Context, accessToken, jobID string) ([]byte, error) {
	if !pathSafe(jobID) {
		err := errors.New("the job's id has characters other than letters, digits, '-', '_' and '.', or none")
		return nil, &RequestError{Op: OpGetJob, Err: err}
	}
	body, err := c.hubCall(ctx, call{
		op: OpGetJob, method: http.MethodGet, token: accessToken, timeout: c.timeouts.GetJob, limit: c.maxJobSize,
	}, "/jobs/"+jobID, nil)
	if err != nil {
		return nil, err
	}
	if !json.Valid(body) {
		return nil, &AnswerError{Op: OpGetJob, Err: errors.New("it is no JSON")}
	}
	return body, nil
}

// pathSafe tells whether a job's id can stand in a URL's path as it is.
func pathSafe(id string) bool {
	if id == "" || id == "." || id == ".." {
		return false
	}
	for _, r := range id {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
		default:
			return false
		}
	}
	return true
}

// RefreshLogToken asks for a new token for the log of the job the agent holds.
// The answer is 422 if it holds none.
func (c *Client) RefreshLogToken(ctx context.Context, accessToken string) (string, error) {
	body, err := c.hubCall(ctx, call{
		op: OpRefreshLogToken, method: http.MethodPost, token: accessToken, timeout: c.timeouts.RefreshLogToken,
	}, "/refresh", nil)
	if err != nil {
		return "", err
	}
	var answer struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", &AnswerError{Op: OpRefreshLogToken, Err: err}
	}
	if answer.Token == "" {
		return "", &AnswerError{Op: OpRefreshLogToken, Err: errors.New("it has no token")}
	}
	return answer.Token, nil
}

// Disconnect makes the hub forget the agent. An agent it doesn't know (404)
// counts as gone.
func (c *Client) Disconnect(ctx context.Context, accessToken string) error {
	_, err := c.hubCall(ctx, call{
		op: OpDisconnect, method: http.MethodPost, token: accessToken, timeout: c.timeouts.Disconnect,
	}, "/disconnect", nil)
	if NotFound(err) {
		return nil
	}
	return err
}

// PushLog sends events of a job's log, one JSON object a line, to the job's log
// URL. startFrom is the index of the first of them; the service cuts what it
// holds to that many events before it appends. body isn't kept.
func (c *Client) PushLog(ctx context.Context, logURL, logToken string, startFrom int64, body []byte) error {
	u, err := url.Parse(logURL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return &RequestError{Op: OpPushLog, Err: errors.New("the log's URL in the job request isn't an absolute http or https URL")}
	}
	if startFrom < 0 {
		return &RequestError{Op: OpPushLog, Err: fmt.Errorf("start_from is %d, below 0", startFrom)}
	}
	query := u.Query()
	query.Set("start_from", strconv.FormatInt(startFrom, 10))
	u.RawQuery = query.Encode()
	_, err = c.do(ctx, call{
		op: OpPushLog, method: http.MethodPost, url: u.String(), scheme: "Bearer", token: logToken,
		contentType: "text/plain", body: body, timeout: c.timeouts.PushLog, limit: maxAnswer,
	})
	return err
}
