package pullauth

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/testregistry"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// ecrCreds are the ones that the AWS of tests takes; env may replace some.
func ecrCreds(env ...string) protocol.PullCredentials {
	return creds("AWS_ECR", append([]string{"AWS_REGION=eu-west-1", "AWS_ACCESS_KEY_ID=" + testregistry.AccessKeyID,
		"AWS_SECRET_ACCESS_KEY=" + testregistry.SecretAccessKey}, env...)...)
}

// getenv is an environment of NAME=VALUE.
func getenv(env ...string) func(string) string {
	return func(name string) string {
		for _, v := range env {
			if n, value, _ := strings.Cut(v, "="); n == name {
				return value
			}
		}
		return ""
	}
}

func TestECR(t *testing.T) {
	for name, c := range map[string]struct {
		registry string // what ECR says
		env      []string
		images   []string // credentials are there for these
		not      []string
		actions  []string
	}{
		"own account, by STS": {"", nil, []string{"111122223333.dkr.ecr.eu-west-1.amazonaws.com/team/app:1"},
			[]string{"444455556666.dkr.ecr.eu-west-1.amazonaws.com/app", "111122223333.dkr.ecr.eu-west-2.amazonaws.com/app", "app"},
			[]string{"GetAuthorizationToken", "GetCallerIdentity"}},
		"an account that is named": {"", []string{"AWS_ACCOUNT_ID=444455556666"},
			[]string{"111122223333.dkr.ecr.eu-west-1.amazonaws.com/app", "444455556666.dkr.ecr.eu-west-1.amazonaws.com/app"}, nil, []string{"GetAuthorizationToken"}},
		"another partition": {"https://111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn", []string{"AWS_ACCOUNT_ID=444455556666", "AWS_REGION=cn-north-1"},
			[]string{"444455556666.dkr.ecr.cn-north-1.amazonaws.com.cn/app"}, []string{"444455556666.dkr.ecr.cn-north-1.amazonaws.com/app"}, []string{"GetAuthorizationToken"}},
		"a registry elsewhere": {"http://127.0.0.1:5000", nil,
			[]string{"127.0.0.1:5000/app", "111122223333.dkr.ecr.eu-west-1.amazonaws.com/app"}, nil, []string{"GetAuthorizationToken", "GetCallerIdentity"}},
	} {
		t.Run(name, func(t *testing.T) {
			aws := testregistry.StartAWS(t)
			aws.Registry = c.registry
			keyring, err := Resolve(t.Context(), []protocol.PullCredentials{ecrCreds(c.env...)}, Options{Getenv: getenv("AWS_ENDPOINT_URL=" + aws.URL)})
			require.NoError(t, err)
			for _, image := range c.images {
				encoded, ok := keyring.For(image)
				require.True(t, ok, image)
				host, _, _ := strings.Cut(image, "/")
				assert.Equal(t, "AWS:"+testregistry.Password+"@"+host, decode(t, encoded))
			}
			for _, image := range c.not {
				_, ok := keyring.For(image)
				assert.False(t, ok, image)
			}
			assert.Equal(t, c.actions, aws.Actions())
			assert.NotContains(t, strings.Join(keyring.Describe(), "\n"), testregistry.Password)
			assert.Contains(t, keyring.Describe()[0], ": user AWS")
		})
	}
}

func TestECREndpoints(t *testing.T) {
	ecr, sts := testregistry.StartAWS(t), testregistry.StartAWS(t)
	_, err := Resolve(t.Context(), []protocol.PullCredentials{ecrCreds()},
		Options{Getenv: getenv("AWS_ENDPOINT_URL_ECR="+ecr.URL, "AWS_ENDPOINT_URL="+sts.URL, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=false")})
	require.NoError(t, err)
	assert.Equal(t, []string{"GetAuthorizationToken"}, ecr.Actions())
	assert.Equal(t, []string{"GetCallerIdentity"}, sts.Actions())
	assert.Nil(t, awsClients{getenv: getenv("AWS_ENDPOINT_URL="+sts.URL, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=True")}.endpoint("ECR"))
}

// The host may have keys of its own, and a profile that doesn't exist: none of it is for a job.
func TestECRUsesTheJobsKeysOnly(t *testing.T) {
	for _, v := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"} {
		t.Setenv(v, "of-the-host")
	}
	aws := testregistry.StartAWS(t)
	t.Setenv("AWS_ENDPOINT_URL", aws.URL)
	_, err := Resolve(t.Context(), []protocol.PullCredentials{ecrCreds()}, Options{})
	require.NoError(t, err)
	for _, authorization := range aws.Authorizations() {
		assert.Contains(t, authorization, "Credential="+testregistry.AccessKeyID+"/")
		assert.Contains(t, authorization, "/eu-west-1/")
		assert.NotContains(t, authorization, "of-the-host")
	}
}

func TestECRIsOnlyAskedWhenTheRestIsRight(t *testing.T) {
	aws := testregistry.StartAWS(t)
	_, err := Resolve(t.Context(), []protocol.PullCredentials{ecrCreds(), creds("DockerHub")}, Options{Getenv: getenv("AWS_ENDPOINT_URL=" + aws.URL)})
	require.ErrorContains(t, err, "image pull credentials 2 of 2 (DockerHub)")
	assert.Empty(t, aws.Actions())
}

func TestECRRefusals(t *testing.T) {
	const secret = testregistry.SecretAccessKey
	refuse := func(action, code, message string) func(http.ResponseWriter, string) bool {
		return func(w http.ResponseWriter, asked string) bool {
			if asked != action {
				return false
			}
			if action == "GetCallerIdentity" {
				testregistry.RefuseXML(w, http.StatusForbidden, code, message)
			} else {
				testregistry.RefuseJSON(w, http.StatusBadRequest, code, message)
			}
			return true
		}
	}
	answer := func(status int, body string) func(http.ResponseWriter, string) bool {
		return func(w http.ResponseWriter, _ string) bool {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(status)
			fmt.Fprint(w, body)
			return true
		}
	}
	const ecr, sts = "GetAuthorizationToken", "GetCallerIdentity"
	for name, c := range map[string]struct {
		fail func(http.ResponseWriter, string) bool
		env  []string
		want string // a part, behind the kind
	}{
		"unknown key":         {nil, []string{"AWS_ACCESS_KEY_ID=AKIAOTHER"}, "AWS doesn't know AWS_ACCESS_KEY_ID (UnrecognizedClientException of ecr:GetAuthorizationToken): check it, and whether it was deactivated"},
		"unknown key, by STS": {refuse(sts, "InvalidClientTokenId", "The security token included in the request is invalid"), nil, "AWS doesn't know AWS_ACCESS_KEY_ID (InvalidClientTokenId of sts:GetCallerIdentity)"},
		"wrong secret":        {refuse(ecr, "InvalidSignatureException", "The Canonical String for this request should have been 'POST\n/\n"+secret+"'"), nil, "AWS_SECRET_ACCESS_KEY doesn't fit AWS_ACCESS_KEY_ID, or the host's clock is wrong (InvalidSignatureException of ecr:GetAuthorizationToken)"},
		"expired":             {refuse(ecr, "ExpiredTokenException", "The security token included in the request is expired"), nil, "the keys have expired (ExpiredTokenException of ecr:GetAuthorizationToken): renew AWS_SESSION_TOKEN"},
		"no right": {refuse(ecr, "AccessDeniedException", "User: arn:aws:iam::111122223333:user/ci is not authorized to perform: ecr:GetAuthorizationToken on resource: *"), nil,
			"AWS refuses ecr:GetAuthorizationToken: give the user of these keys the right to it (User: arn:aws:iam::111122223333:user/ci is not authorized"},
		"something else":    {refuse(ecr, "OddException", "what\n is "+secret+" \x1b[31m"+strings.Repeat("long ", 200)), nil, "AWS refuses ecr:GetAuthorizationToken: "},
		"clock":             {refuse(ecr, "RequestExpired", ""), nil, "the host's clock is wrong, says AWS"},
		"region":            {refuse(ecr, "OptInRequired", ""), nil, "AWS_REGION isn't enabled for this account"},
		"too often":         {refuse(ecr, "ThrottlingException", "Rate exceeded"), nil, "AWS is asked too often"},
		"a web page":        {answer(http.StatusOK, "<html>"), nil, "AWS gave no usable answer to ecr:GetAuthorizationToken"},
		"an empty list":     {answer(http.StatusOK, `{"authorizationData":[]}`), nil, "AWS gave no usable answer to ecr:GetAuthorizationToken"},
		"no base64":         {answer(http.StatusOK, `{"authorizationData":[{"authorizationToken":"!","proxyEndpoint":"https://registry.example"}]}`), nil, "AWS gave no usable answer to ecr:GetAuthorizationToken"},
		"a redirect":        {answer(http.StatusTemporaryRedirect, ""), nil, "AWS answers to ecr:GetAuthorizationToken with HTTP status 307"},
		"a page of a proxy": {answer(http.StatusForbidden, "<html>blocked"), nil, "AWS answers to ecr:GetAuthorizationToken with HTTP status 403 and gives no reason"},
	} {
		t.Run(name, func(t *testing.T) {
			aws := testregistry.StartAWS(t)
			aws.Fail = c.fail
			_, err := Resolve(t.Context(), []protocol.PullCredentials{ecrCreds(c.env...)}, Options{Getenv: getenv("AWS_ENDPOINT_URL=" + aws.URL)})
			require.ErrorContains(t, err, "cannot use the image pull credentials (AWS_ECR): "+c.want)
			for _, s := range []string{secret, testregistry.AccessKeyID, "AKIAOTHER", "\n", "\x1b"} {
				assert.NotContains(t, err.Error(), s)
			}
			assert.Less(t, len(err.Error()), 700)
			t.Log(err)
		})
	}
}

func TestECRUnreachable(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	tls := httptest.NewUnstartedServer(nil)
	tls.Config.ErrorLog = log.New(io.Discard, "", 0)
	tls.StartTLS()
	defer tls.Close()
	for name, c := range map[string]struct{ url, want string }{
		"nobody listens": {gone.URL, "cannot reach AWS for ecr:GetAuthorizationToken: look at the host's network and proxy (connection refused)"},
		"no such host":   {"http://ecr.invalid", "the host of AWS for ecr:GetAuthorizationToken isn't found: check AWS_REGION, and the host's DNS"},
		"certificate":    {tls.URL, "the certificate of AWS isn't trusted in ecr:GetAuthorizationToken"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Resolve(t.Context(), []protocol.PullCredentials{ecrCreds()}, Options{Getenv: getenv("AWS_ENDPOINT_URL=" + c.url)})
			require.ErrorContains(t, err, "cannot use the image pull credentials (AWS_ECR): "+c.want)
			assert.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestECRThatDoesNotAnswer(t *testing.T) {
	release := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer silent.Close()
	defer close(release)
	opts := Options{Getenv: getenv("AWS_ENDPOINT_URL=" + silent.URL), Timeout: 50 * time.Millisecond}
	_, err := Resolve(t.Context(), []protocol.PullCredentials{ecrCreds()}, opts)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.ErrorContains(t, err, "AWS doesn't answer to ecr:GetAuthorizationToken in time")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Resolve(ctx, []protocol.PullCredentials{ecrCreds()}, Options{Getenv: opts.Getenv})
	require.ErrorIs(t, err, context.Canceled)
	assert.ErrorContains(t, err, "ecr:GetAuthorizationToken was broken off")
}
