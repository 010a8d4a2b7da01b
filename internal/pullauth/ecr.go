package pullauth

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
)

var (
	awsRegion  = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)+$`)
	awsAccount = regexp.MustCompile(`^[0-9]{12}$`)
	// ecrHost is a registry of ECR: what follows the account differs between regions and partitions.
	ecrHost = regexp.MustCompile(`^[0-9]{12}(\.dkr\.ecr[.-].+)$`)
)

// awsClients talk to AWS with a job's keys and nothing else: the SDK's search for the host's own credentials and profiles isn't linked.
type awsClients struct {
	http   *http.Client
	getenv func(string) string
}

func newAWS(getenv func(string) string) awsClients {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// A redirect is no answer of AWS, and nobody but AWS is to see a signed request.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return awsClients{http: &http.Client{Transport: transport, CheckRedirect: stay}, getenv: getenv}
}

func (a awsClients) close() { a.http.CloseIdleConnections() }

func (s set) checkAWS() error {
	if err := s.require("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"); err != nil {
		return err
	}
	if !awsRegion.MatchString(s.value("AWS_REGION")) {
		return errors.New("AWS_REGION has to be a region's code, such as eu-west-1")
	}
	if account := s.value("AWS_ACCOUNT_ID"); account != "" && !awsAccount.MatchString(account) {
		return errors.New("AWS_ACCOUNT_ID has to be the 12 digits of an account, or be left out")
	}
	return nil
}

// login exchanges keys for a password. It holds for the registry of AWS_ACCOUNT_ID, or else of the account the keys belong to, and
// for the one that ECR names itself, which differs where another account's registry is used or an endpoint is replaced.
func (a awsClients) login(ctx context.Context, s set) ([]login, error) {
	config := aws.Config{
		Region:      s.value("AWS_REGION"),
		Credentials: credentials.NewStaticCredentialsProvider(s.value("AWS_ACCESS_KEY_ID"), s.value("AWS_SECRET_ACCESS_KEY"), s.value("AWS_SESSION_TOKEN")),
		HTTPClient:  a.http,
	}
	user, password, named, err := a.token(ctx, config)
	if err != nil {
		return nil, s.refusal("ecr:GetAuthorizationToken", err)
	}
	account := s.value("AWS_ACCOUNT_ID")
	if account == "" {
		if account, err = a.account(ctx, config); err != nil {
			return nil, s.refusal("sts:GetCallerIdentity", err)
		}
	}
	hosts := []string{named}
	if own := registryOf(account, config.Region, named); own != named {
		hosts = []string{named, own}
	}
	logins := make([]login, 0, len(hosts))
	for _, host := range hosts {
		logins = append(logins, login{host: host, user: user, password: password})
	}
	return logins, nil
}

// token asks ECR for a user and a password, and for the registry they are for.
func (a awsClients) token(ctx context.Context, config aws.Config) (user, password, host string, err error) {
	config.BaseEndpoint = a.endpoint("ECR")
	out, err := ecr.NewFromConfig(config).GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return "", "", "", err
	}
	for _, data := range out.AuthorizationData {
		decoded, err := base64.StdEncoding.DecodeString(aws.ToString(data.AuthorizationToken))
		user, password, pair := strings.Cut(string(decoded), ":")
		host, _, named := parseRegistry(aws.ToString(data.ProxyEndpoint))
		if err == nil && pair && named {
			return user, password, host, nil
		}
	}
	return "", "", "", errAnswer
}

func (a awsClients) account(ctx context.Context, config aws.Config) (string, error) {
	config.BaseEndpoint = a.endpoint("STS")
	out, err := sts.NewFromConfig(config).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return "", err
	}
	if account := aws.ToString(out.Account); awsAccount.MatchString(account) {
		return account, nil
	}
	return "", errAnswer
}

// endpoint gives the address that the host has set in place of AWS's, by the rules of AWS's SDKs.
func (a awsClients) endpoint(service string) *string {
	if strings.EqualFold(a.getenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"), "true") {
		return nil
	}
	for _, name := range []string{"AWS_ENDPOINT_URL_" + service, "AWS_ENDPOINT_URL"} {
		if url := a.getenv(name); url != "" {
			return &url
		}
	}
	return nil
}

// registryOf gives an account's registry; named is one of the same region, whose domain is followed.
func registryOf(account, region, named string) string {
	if m := ecrHost.FindStringSubmatch(named); m != nil {
		return account + m[1]
	}
	domain := "amazonaws.com"
	if strings.HasPrefix(region, "cn-") {
		domain = "amazonaws.com.cn"
	}
	return account + ".dkr.ecr." + region + "." + domain
}

// errAnswer is an answer of AWS that holds not what was asked for.
var errAnswer = errors.New("the answer isn't one of AWS")

// unknownCode is the SDK's for an answer that isn't an error of AWS.
const unknownCode = "UnknownError"

// refusal tells in one line why AWS gave nothing for action, and what to do.
func (s set) refusal(action string, err error) error {
	var api smithy.APIError
	var status interface{ HTTPStatusCode() int }
	var unread *smithy.DeserializationError
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &status) && status.HTTPStatusCode() >= http.StatusMultipleChoices && (!errors.As(err, &api) || api.ErrorCode() == unknownCode):
		return fmt.Errorf("AWS answers to %s with HTTP status %d and gives no reason: is something else in its place (AWS_ENDPOINT_URL, a proxy)", action, status.HTTPStatusCode())
	case errors.As(err, &api):
		return s.apiRefusal(action, api)
	case errors.Is(err, errAnswer), errors.As(err, &unread):
		return fmt.Errorf("AWS gave no usable answer to %s: is something else in its place (AWS_ENDPOINT_URL, a proxy)", action)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s was broken off: %w", action, context.Canceled)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("AWS doesn't answer to %s in time: look at the host's network and proxy: %w", action, context.DeadlineExceeded)
	case errors.As(err, &dns):
		return fmt.Errorf("the host of AWS for %s isn't found: check AWS_REGION, and the host's DNS", action)
	case errors.As(err, &certificate):
		return fmt.Errorf("the certificate of AWS isn't trusted in %s: check the host's CA certificates (SSL_CERT_FILE) and its proxy", action)
	default:
		return fmt.Errorf("cannot reach AWS for %s: look at the host's network and proxy (%s)", action, s.clean(rootCause(err).Error()))
	}
}

func (s set) apiRefusal(action string, err smithy.APIError) error {
	switch code := err.ErrorCode(); code {
	case "UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId", "MissingAuthenticationToken", "MissingAuthenticationTokenException":
		return fmt.Errorf("AWS doesn't know AWS_ACCESS_KEY_ID (%s of %s): check it, and whether it was deactivated", s.clean(code), action)
	case "InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignature", "IncompleteSignatureException":
		return fmt.Errorf("AWS_SECRET_ACCESS_KEY doesn't fit AWS_ACCESS_KEY_ID, or the host's clock is wrong (%s of %s)", s.clean(code), action)
	case "ExpiredToken", "ExpiredTokenException":
		return fmt.Errorf("the keys have expired (%s of %s): renew AWS_SESSION_TOKEN and what belongs to it", s.clean(code), action)
	case "RequestExpired", "RequestTimeTooSkewed":
		return fmt.Errorf("the host's clock is wrong, says AWS (%s of %s)", s.clean(code), action)
	case "AccessDenied", "AccessDeniedException", "UnauthorizedOperation":
		return fmt.Errorf("AWS refuses %s: give the user of these keys the right to it (%s)", action, s.clean(err.ErrorMessage()))
	case "OptInRequired", "SubscriptionRequiredException", "RegionDisabledException":
		return fmt.Errorf("AWS_REGION isn't enabled for this account (%s of %s)", s.clean(code), action)
	case "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException":
		return fmt.Errorf("AWS is asked too often (%s of %s): run the job again later", s.clean(code), action)
	default:
		return fmt.Errorf("AWS refuses %s: %s (%s)", action, s.clean(err.ErrorMessage()), s.clean(code))
	}
}

// clean makes one short line of what AWS says, without the keys.
func (s set) clean(text string) string {
	for _, name := range []string{"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"} {
		if secret := s.value(name); secret != "" {
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > 300 {
		text = string(runes[:300]) + "…"
	}
	return printable(text)
}

// rootCause is the innermost error, which has no addresses and attempts around it.
func rootCause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
