package admin

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"time"

	"github.com/signalman-ci/signalman/internal/jobdir"
)

// kept is what the file of the sessions holds: nothing that a session could be had by.
type kept struct {
	// Token is the hash of the token they were made with: with another token they end.
	Token string `json:"token"`
	// Sessions are their ends, by the hash of their ids.
	Sessions map[string]time.Time `json:"sessions"`
}

// load takes up the sessions of the supervisor before. A file that can't be read is one without any.
func (a *auth) load() {
	if a.file == "" {
		return
	}
	raw, err := os.ReadFile(a.file)
	var k kept
	if err != nil || json.Unmarshal(raw, &k) != nil || k.Token != a.tokenMark() {
		return
	}
	now := a.now()
	for text, end := range k.Sessions {
		hash, err := hex.DecodeString(text)
		if err == nil && len(hash) == sha256.Size && end.After(now) && !end.After(now.Add(sessionLife)) && len(a.sessions) < maxSessions {
			a.sessions[[sha256.Size]byte(hash)] = end
		}
	}
}

// keep writes the sessions down. Where that fails they end with this supervisor, unless they had been kept before. It needs mu.
func (a *auth) keep() {
	if a.file == "" {
		return
	}
	k := kept{Token: a.tokenMark(), Sessions: map[string]time.Time{}}
	for hash, end := range a.sessions {
		k.Sessions[hex.EncodeToString(hash[:])] = end
	}
	raw, err := json.Marshal(k)
	if err == nil && jobdir.WriteFile(a.file, append(raw, '\n')) != nil {
		_ = os.Remove(a.file) // so that one that was ended doesn't come back
	}
}

// tokenMark tells tokens apart, and is no use for finding one.
func (a *auth) tokenMark() string {
	sum := sha256.Sum256(append([]byte("sessions of "), a.token[:]...))
	return hex.EncodeToString(sum[:])
}
