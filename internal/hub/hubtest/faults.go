package hubtest

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// FaultKind is a way to misbehave.
type FaultKind int

// The kinds of faults. "Handled" is what the hub does with a request, its
// effects included.
const (
	// Answer gives Status and Body without handling the request.
	Answer FaultKind = iota
	// AnswerAfter handles the request and then gives Status and Body instead
	// of the true answer, as an ingress that lost patience does.
	AnswerAfter
	// Delay waits before it handles and answers. A client that leaves
	// meanwhile spares the request from being handled; clearing ends the wait.
	Delay
	// Hang never answers nor handles, until the client leaves, Until is closed
	// or the rule is cleared; then the connection breaks.
	Hang
	// Drop breaks the connection without handling the request.
	Drop
	// DropAnswer handles the request and breaks the connection.
	DropAnswer
	// Late waits, then handles the request though the client may have gone
	// and the rule been cleared. With Status it gives Status and Body first,
	// without it the true answer if the client is still there.
	Late
	// Cut handles the request and breaks the connection in the middle of the
	// answer's body.
	Cut
	// Reset breaks the connection with a TCP reset, without handling the request.
	Reset
)

// Fault is what is to go wrong, and when.
type Fault struct {
	Endpoint Endpoint
	Kind     FaultKind
	// Status is 500 if 0, except for Late. Body is sent as it is: a Status of
	// 200 with garbage in Body is an answer nobody understands.
	Status int
	Body   string
	// For is how long Delay and Late wait, by the real clock.
	For time.Duration
	// Until ends the wait of Delay, Hang and Late when it is closed.
	Until <-chan struct{}
	// Times is how many requests are hit; 0 is all until the rule is cleared.
	Times int
	// Skip is how many matching requests are let through first.
	Skip int
	// Agent limits the rule to the agent of that name (by its access token);
	// not for registrations and logs.
	Agent string
	// Match, if set, limits the rule further. The body has been read already.
	Match func(r *http.Request, body []byte) bool
}

// FaultRule is a fault in force.
type FaultRule struct {
	hub     *Hub
	fault   Fault
	cleared chan struct{}

	// Under hub.mu:
	isCleared bool
	seen      int
	hits      int
	done      int
}

// AddFault puts a fault in force. A request is hit by the first rule that
// matches it.
func (h *Hub) AddFault(f Fault) *FaultRule {
	rule := &FaultRule{hub: h, fault: f, cleared: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, rule)
	return rule
}

// ClearFaults clears all rules, or those for the given endpoints.
func (h *Hub) ClearFaults(endpoints ...Endpoint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, rule := range slices.Clone(h.faults) {
		if len(endpoints) == 0 || slices.Contains(endpoints, rule.fault.Endpoint) {
			rule.clearLocked()
		}
	}
}

// Clear puts the rule out of force and ends the waits of Delay and Hang.
func (r *FaultRule) Clear() {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	r.clearLocked()
}

func (r *FaultRule) clearLocked() {
	if r.isCleared {
		return
	}
	r.isCleared = true
	close(r.cleared)
	r.hub.faults = slices.DeleteFunc(r.hub.faults, func(other *FaultRule) bool { return other == r })
}

// Hits is how many requests the rule has hit.
func (r *FaultRule) Hits() int {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	return r.hits
}

// WaitHits waits until the rule has hit at least n requests.
func (r *FaultRule) WaitHits(ctx context.Context, n int) error {
	return r.waitFor(ctx, "hit", n, &r.hits)
}

// WaitDone waits until the rule is through with at least n requests: handled
// late, answered, dropped.
func (r *FaultRule) WaitDone(ctx context.Context, n int) error {
	return r.waitFor(ctx, "be through with", n, &r.done)
}

func (r *FaultRule) waitFor(ctx context.Context, what string, n int, count *int) error {
	now := 0
	err := r.hub.wait(ctx, func() func() bool {
		now = *count
		return func() bool { return now >= n }
	})
	if err != nil {
		return fmt.Errorf("cannot wait for the %s fault to %s %d requests, now %d: %w", r.fault.Endpoint, what, n, now, err)
	}
	return nil
}

// takeFault finds the rule that hits a request, if any.
func (h *Hub) takeFault(e Endpoint, r *http.Request, body []byte) *FaultRule {
	h.mu.Lock()
	rules := slices.Clone(h.faults)
	h.mu.Unlock()
	for _, rule := range rules {
		if rule.fault.Endpoint != e || (rule.fault.Match != nil && !rule.fault.Match(r, body)) {
			continue
		}
		if rule.take(r) {
			return rule
		}
	}
	return nil
}

func (r *FaultRule) take(req *http.Request) bool {
	h := r.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.isCleared || (r.fault.Times > 0 && r.hits >= r.fault.Times) {
		return false
	}
	if r.fault.Agent != "" {
		token, _ := bearer(req.Header.Get("Authorization"), "Token")
		if a := h.agents[token]; a == nil || a.Name != r.fault.Agent {
			return false
		}
	}
	r.seen++
	if r.seen <= r.fault.Skip {
		return false
	}
	r.hits++
	h.changedLocked()
	return true
}

func (h *Hub) misbehave(w http.ResponseWriter, r *http.Request, rule *FaultRule, handle func() answer) {
	f := rule.fault
	instead := answer{code: cmp.Or(f.Status, http.StatusInternalServerError), body: []byte(f.Body)}
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		rule.done++
		h.changedLocked()
	}()
	switch f.Kind {
	case Answer:
		instead.write(w)
	case AnswerAfter:
		handle()
		instead.write(w)
	case Delay:
		if !h.pause(f, rule.cleared, r.Context().Done()) {
			drop(w)
			return
		}
		handle().write(w)
	case Hang:
		select {
		case <-r.Context().Done():
		case <-rule.cleared:
		case <-f.Until:
		case <-h.done:
		}
		drop(w)
	case Drop:
		drop(w)
	case DropAnswer:
		handle()
		drop(w)
	case Cut:
		handle().writeHalf(w)
		drop(w)
	case Reset:
		reset(w)
	case Late:
		if f.Status != 0 {
			w.Header().Set("Connection", "close") // it is held until the handling is over
			instead.write(w)
			_ = http.NewResponseController(w).Flush() // the client may be gone
		}
		if !h.pause(f, nil, nil) { // closed
			if f.Status == 0 {
				drop(w)
			}
			return
		}
		if out := handle(); f.Status == 0 {
			out.write(w)
		}
	}
}

// pause waits as a fault says, or until it is cleared. It returns false if the
// client leaves or the hub is closed.
func (h *Hub) pause(f Fault, cleared, gone <-chan struct{}) bool {
	var elapsed <-chan time.Time
	if f.For > 0 {
		timer := time.NewTimer(f.For)
		defer timer.Stop()
		elapsed = timer.C
	} else if f.Until == nil {
		return true
	}
	select {
	case <-elapsed:
	case <-f.Until:
	case <-cleared:
	case <-gone:
		return false
	case <-h.done:
		return false
	}
	return true
}
