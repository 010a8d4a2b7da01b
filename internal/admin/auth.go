package admin

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	sessionPath = "/v1/session"
	// sessionLife is how long a session lasts; maxSessions bounds how many there are: the oldest makes room.
	sessionLife = 12 * time.Hour
	maxSessions = 32
	// wrongPace is how far the answers to wrong tokens are apart, all callers together, and maxWrong how many may wait for
	// theirs. Right ones don't wait, or anybody on the host could keep the operator out.
	wrongPace = 250 * time.Millisecond
	maxWrong  = 8
)

// auth tells who knows the token. It is safe for concurrent use.
type auth struct {
	token [sha256.Size]byte
	now   func() time.Time
	wrong chan struct{} // those that wait

	file string // where the sessions are kept; "" if they aren't

	mu       sync.Mutex
	sessions map[[sha256.Size]byte]time.Time // ends, by the hash of the id
	nextNo   time.Time                       // when the next wrong token may be answered
}

func newAuth(token, file string) *auth {
	a := &auth{
		token: sha256.Sum256([]byte(token)), now: time.Now,
		wrong: make(chan struct{}, maxWrong), sessions: map[[sha256.Size]byte]time.Time{}, file: file,
	}
	a.load()
	return a
}

// admit lets a request with token or session through; else it answers.
func (a *auth) admit(w http.ResponseWriter, r *http.Request) bool {
	given := bearer(r)
	switch {
	case given == "":
		w.Header().Set("WWW-Authenticate", "Bearer")
		refuse(w, http.StatusUnauthorized, "this needs the token (supervisor admin-token) as Authorization: Bearer TOKEN, or a session's id")
		return false
	case a.isToken(given), a.isSession(given):
		return true
	default:
		a.refuseToken(w, r)
		return false
	}
}

// bearer is the token or the session's id that a request comes with, or "". There are no cookies: a browser sends those of one port to all
// ports of a host, where other users may listen.
func bearer(r *http.Request) string {
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(given)
}

// isToken compares hashes, whose length is no secret, in a time that says nothing.
func (a *auth) isToken(token string) bool {
	sum := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(sum[:], a.token[:]) == 1
}

// refuseToken answers a wrong token when it is its turn.
func (a *auth) refuseToken(w http.ResponseWriter, r *http.Request) {
	select {
	case a.wrong <- struct{}{}:
		defer func() { <-a.wrong }()
	default:
		w.Header().Set("Retry-After", "2")
		refuse(w, http.StatusTooManyRequests, "too many wrong tokens; try again later")
		return
	}
	a.mu.Lock()
	now := a.now()
	turn := a.nextNo
	if turn.Before(now) {
		turn = now
	}
	turn = turn.Add(wrongPace)
	if last := now.Add(maxWrong * wrongPace); turn.After(last) { // some have gone away meanwhile, and their turns are free
		turn = last
	}
	a.nextNo = turn
	a.mu.Unlock()
	t := time.NewTimer(turn.Sub(now))
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	}
	w.Header().Set("WWW-Authenticate", "Bearer")
	refuse(w, http.StatusUnauthorized, "this is not the token; see: supervisor admin-token")
}

// begin makes a session for who sends the token.
func (a *auth) begin(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Token string `json:"token"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		refuse(w, http.StatusBadRequest, `cannot read the request, which is {"token": "…"}`)
		return
	}
	if !a.isToken(strings.TrimSpace(body.Token)) {
		a.refuseToken(w, r)
		return
	}
	id := rand.Text()
	now := a.now()
	a.mu.Lock()
	a.sweep(now)
	a.sessions[sha256.Sum256([]byte(id))] = now.Add(sessionLife)
	a.keep()
	a.mu.Unlock()
	answer(w, http.StatusCreated, session{ID: id})
}

// session is the answer to who begins one. The id is as good as the token, until the session has had its time.
type session struct {
	ID string `json:"id"`
}

// sweep makes room for another session.
func (a *auth) sweep(now time.Time) {
	var oldest [sha256.Size]byte
	for id, end := range a.sessions {
		if !end.After(now) {
			delete(a.sessions, id)
			continue
		}
		if first, ok := a.sessions[oldest]; !ok || end.Before(first) {
			oldest = id
		}
	}
	if len(a.sessions) >= maxSessions {
		delete(a.sessions, oldest)
	}
}

// end ends the session that a request comes with, if it does.
func (a *auth) end(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	delete(a.sessions, sha256.Sum256([]byte(bearer(r))))
	a.keep()
	a.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

// isSession finds a session by the hash of its id, so that how long that takes says nothing of the id.
func (a *auth) isSession(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	end, ok := a.sessions[sha256.Sum256([]byte(id))]
	return ok && end.After(a.now())
}
