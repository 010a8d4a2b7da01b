package serve

import (
	"errors"
	"net/http"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// authorized lets only those pass who hold a token that is signed with the secret, by HS256 and no other way, and hasn't expired.
func authorized(secret []byte, next http.Handler) http.Handler {
	parser := jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}))
	check := func(r *http.Request) error {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			return errors.New("no bearer token")
		}
		_, err := parser.Parse(strings.TrimSpace(token), func(*jwt.Token) (any, error) { return secret, nil })
		return err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if check(r) != nil { // why is nobody's business
			refuse(w, http.StatusUnauthorized, "not authorized")
			return
		}
		next.ServeHTTP(w, r)
	})
}
