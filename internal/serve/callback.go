package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

const (
	// callbackLimit is how long one try of a callback may take.
	callbackLimit = 30 * time.Second
	// maxAnswer is how much of an answer is read, in bytes, so that the connection can be used again.
	maxAnswer = 64 << 10
)

// tell posts what has become of a job until that is heard, the tries are used up or ctx ends. It doesn't matter to the job; the log says
// what went wrong.
func (s *Server) tell(ctx context.Context, what, address, token string, body any) {
	if address == "" {
		return
	}
	raw, err := json.Marshal(body)
	if err != nil {
		s.Logger.Error("cannot tell of the job", "callback", what, "error", err)
		return
	}
	for try := 1; ; try++ {
		err := s.post(ctx, address, token, raw)
		switch {
		case err == nil:
			if try > 1 {
				s.Logger.Info("the callback was heard", "callback", what, "tries", try)
			}
			return
		case ctx.Err() != nil:
			return
		case try >= s.CallbackAttempts:
			s.Logger.Error("nobody hears the callback; it is given up", "callback", what, "tries", try, "error", err)
			return
		case try == 1:
			s.Logger.Warn("the callback wasn't heard; trying again", "callback", what, "error", err)
		}
		select {
		case <-time.After(s.CallbackEvery):
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) post(ctx context.Context, address, token string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, callbackLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return withoutAddress(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", s.UserAgent)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := s.HTTP.Do(req)
	if err != nil {
		return withoutAddress(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)) // the status has said it all
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("the answer was %s", resp.Status)
	}
	return nil
}

// withoutAddress takes the address out of an error: there may be a token in it.
func withoutAddress(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
