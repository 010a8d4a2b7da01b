package pullauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/signalman-ci/signalman/shared/protocol"
)

// The kinds of credentials, as DOCKER_CREDENTIAL_TYPE names them.
const (
	kindVariable = "DOCKER_CREDENTIAL_TYPE"
	kindHub      = "DockerHub"
	kindGeneric  = "GenericDocker"
	kindECR      = "AWS_ECR"
	kindGCR      = "GCR"
)

// gcrKeyFile is where a job brings the key of a Google service account.
const gcrKeyFile = "/tmp/gcr/keyfile.json"

// DefaultTimeout bounds what Resolve asks of AWS, all credentials together.
const DefaultTimeout = 30 * time.Second

// Options of Resolve; the zero Options are fine.
type Options struct {
	// Getenv looks up the variables with which AWS's SDKs have their endpoints replaced: AWS_ENDPOINT_URL_ECR, AWS_ENDPOINT_URL_STS,
	// AWS_ENDPOINT_URL and AWS_IGNORE_CONFIGURED_ENDPOINT_URLS. They are the host's, never the job's. nil: os.Getenv.
	Getenv func(string) string
	// Timeout bounds all calls to AWS; 0: DefaultTimeout.
	Timeout time.Duration
}

// Resolve makes a Keyring of a job's credentials. AWS_ECR is exchanged for a password at AWS, the others need no network. Everything
// that is wrong is told, each in one line of the error (errors.Join); AWS is only asked once the rest is right.
func Resolve(ctx context.Context, credentials []protocol.PullCredentials, opts Options) (Keyring, error) {
	if opts.Getenv == nil {
		opts.Getenv = os.Getenv
	}
	if opts.Timeout == 0 {
		opts.Timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, opts.Timeout)
	defer cancel()

	sets := make([]set, len(credentials))
	logins := make([][]login, len(credentials))
	var problems []error
	for i, c := range credentials {
		sets[i] = newSet(c)
		var err error
		if logins[i], err = sets[i].login(); err != nil {
			problems = append(problems, sets[i].problem(i, len(credentials), err))
		}
	}
	if len(problems) == 0 {
		aws := newAWS(opts.Getenv)
		defer aws.close()
		for i, s := range sets {
			if s.kind() != kindECR {
				continue
			}
			var err error
			if logins[i], err = aws.login(ctx, s); err != nil {
				problems = append(problems, s.problem(i, len(sets), err))
			}
		}
	}
	if len(problems) > 0 {
		return Keyring{}, errors.Join(problems...)
	}
	return Keyring{logins: slices.Concat(logins...)}, nil
}

// set is one set of credentials.
type set struct {
	env   map[string]string
	files map[string]string
}

func newSet(c protocol.PullCredentials) set {
	s := set{env: map[string]string{}, files: map[string]string{}}
	for _, v := range c.Env {
		s.env[v.Name] = v.Value
	}
	for _, f := range c.Files {
		s.files[path.Clean(f.Path)] = string(f.Content)
	}
	return s
}

func (s set) kind() string { return s.value(kindVariable) }

// value of a variable without the white space around it, which comes along when secrets are made from files.
func (s set) value(name string) string { return strings.TrimSpace(s.env[name]) }

// login gives what the credentials say by themselves: nothing, without an error, for AWS_ECR whose variables are there.
func (s set) login() ([]login, error) {
	switch s.kind() {
	case kindHub:
		if err := s.require("DOCKERHUB_USERNAME", "DOCKERHUB_PASSWORD"); err != nil {
			return nil, err
		}
		return []login{{host: dockerHub, user: s.value("DOCKERHUB_USERNAME"), password: s.password("DOCKERHUB_PASSWORD")}}, nil
	case kindGeneric:
		if err := s.require("DOCKER_URL", "DOCKER_USERNAME", "DOCKER_PASSWORD"); err != nil {
			return nil, err
		}
		host, path, ok := parseRegistry(s.env["DOCKER_URL"])
		if !ok {
			return nil, errors.New("DOCKER_URL has to be the registry as images name it, such as registry.example or registry.example:5000")
		}
		return []login{{host: host, path: path, user: s.value("DOCKER_USERNAME"), password: s.password("DOCKER_PASSWORD")}}, nil
	case kindGCR:
		return s.gcr()
	case kindECR:
		return nil, s.checkAWS()
	case "":
		return nil, fmt.Errorf("%s is missing: it has to be %s, %s, %s or %s", kindVariable, kindHub, kindGeneric, kindECR, kindGCR)
	default:
		return nil, fmt.Errorf("%s is of no kind that is known: it has to be %s, %s, %s or %s", kindVariable, kindHub, kindGeneric, kindECR, kindGCR)
	}
}

func (s set) gcr() ([]login, error) {
	if err := s.require("GCR_HOSTNAME"); err != nil {
		return nil, err
	}
	key := strings.TrimSpace(s.files[gcrKeyFile])
	if key == "" {
		return nil, fmt.Errorf("the file %s is missing or empty: it has to hold the key of a service account in JSON", gcrKeyFile)
	}
	if !json.Valid([]byte(key)) {
		return nil, fmt.Errorf("the file %s isn't JSON: it has to hold the key of a service account as it was downloaded", gcrKeyFile)
	}
	host, path, ok := parseRegistry(s.env["GCR_HOSTNAME"])
	if !ok {
		return nil, errors.New("GCR_HOSTNAME has to be the registry as images name it")
	}
	return []login{{host: host, path: path, user: "_json_key", password: key}}, nil
}

// password is a variable without the end of the line that a secret made from a file has.
func (s set) password(name string) string { return strings.TrimRight(s.env[name], "\r\n") }

// require names the variables that are missing or empty.
func (s set) require(names ...string) error {
	missing := slices.DeleteFunc(names, func(name string) bool { return s.value(name) != "" })
	switch len(missing) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%s is missing or empty: set it in the secret that these credentials come from", missing[0])
	default:
		list := strings.Join(missing[:len(missing)-1], ", ") + " and " + missing[len(missing)-1]
		return fmt.Errorf("%s are missing or empty: set them in the secret that these credentials come from", list)
	}
}

// problem says which of a job's credentials err is about, index counting from 0.
func (s set) problem(index, count int, err error) error {
	which := "image pull credentials"
	if count > 1 {
		which = fmt.Sprintf("image pull credentials %d of %d", index+1, count)
	}
	if kind := s.kind(); slices.Contains([]string{kindHub, kindGeneric, kindECR, kindGCR}, kind) {
		which += " (" + kind + ")"
	}
	return fmt.Errorf("cannot use the %s: %w", which, err)
}
