package testregistry

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// The keys that AWS takes.
const (
	AccessKeyID     = "AKIAEXAMPLEEXAMPLE00"
	SecretAccessKey = "wJalrEXAMPLE/SECRET+KEY0000000000000000" //nolint:gosec // no account has it
)

// AWS answers like ECR (GetAuthorizationToken) and STS (GetCallerIdentity) at one address. It looks at the access key, not at the
// signature. Fields are to be set before the first request.
type AWS struct {
	// URL is for AWS_ENDPOINT_URL.
	URL string
	// Account is what STS says; 111122223333 unless set.
	Account string
	// Registry is what ECR says its address is; made of Account if empty.
	Registry string
	// User and Password are what ECR gives for the registry: AWS, and Password of this package, unless set. Real ones are always AWS.
	User, Password string
	// Fail answers in place of ECR and STS, if set, and tells whether it has.
	Fail func(w http.ResponseWriter, action string) bool

	mu      sync.Mutex
	actions []string
	keys    []string
}

// StartAWS runs until the test's end.
func StartAWS(t testing.TB) *AWS {
	t.Helper()
	a := &AWS{Account: "111122223333", User: "AWS", Password: Password}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	a.URL = server.URL
	return a
}

// Actions lists what was asked for, in order.
func (a *AWS) Actions() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.actions...)
}

// Authorizations lists the headers with which it was asked.
func (a *AWS) Authorizations() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.keys...)
}

// ServeHTTP implements http.Handler.
func (a *AWS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	action := r.Header.Get("X-Amz-Target")
	if action == "" {
		action = r.FormValue("Action")
	}
	action = action[strings.LastIndexByte(action, '.')+1:]
	authorization := r.Header.Get("Authorization")
	a.mu.Lock()
	a.actions, a.keys = append(a.actions, action), append(a.keys, authorization)
	a.mu.Unlock()

	known := strings.Contains(authorization, "Credential="+AccessKeyID+"/")
	switch {
	case a.Fail != nil && a.Fail(w, action):
	case action == "GetAuthorizationToken" && !known:
		RefuseJSON(w, http.StatusBadRequest, "UnrecognizedClientException", "The security token included in the request is invalid.")
	case action == "GetAuthorizationToken":
		a.token(w)
	case action == "GetCallerIdentity" && known:
		fmt.Fprintf(w, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>`+
			`<Arn>arn:aws:iam::%[1]s:user/ci</Arn><UserId>AIDAEXAMPLE</UserId><Account>%[1]s</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`, a.Account)
	default:
		http.Error(w, "unknown action", http.StatusNotFound)
	}
}

func (a *AWS) token(w http.ResponseWriter) {
	registry := a.Registry
	if registry == "" {
		registry = "https://" + a.Account + ".dkr.ecr.eu-west-1.amazonaws.com"
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(map[string]any{"authorizationData": []any{map[string]any{
		"authorizationToken": base64.StdEncoding.EncodeToString([]byte(a.User + ":" + a.Password)),
		"expiresAt":          float64(time.Now().Add(12 * time.Hour).Unix()),
		"proxyEndpoint":      registry,
	}}})
}

// RefuseJSON answers as ECR does when it refuses.
func RefuseJSON(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-Errortype", code)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": message})
}

// RefuseXML answers as STS does when it refuses.
func RefuseXML(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error></ErrorResponse>`, code, message)
}
