package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/connrotation"

	"github.com/signalman-ci/signalman/internal/version"
)

const (
	// requestLimit bounds one request, but for watches and execs.
	requestLimit = 30 * time.Second
	// What a worker may ask of the API server: the few requests of a job's start aren't held up.
	requestsPerSecond, requestsAtOnce = 50, 100
	// serviceAccount is where a pod has the credentials of its service account.
	serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

	namespaceVariable = "KUBERNETES_NAMESPACE"
	defaultNamespace  = "default"
)

// Options say which cluster and namespace; what is empty is looked for: see Connect.
type Options struct {
	Kubeconfig, Context, Namespace string
}

// scheme has the kinds that are used; parameters are options in a request's address.
var (
	scheme     = newScheme()
	parameters = runtime.NewParameterCodec(scheme)
)

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	utilruntime.Must(corev1.AddToScheme(s)) // which fails only for kinds that clash
	return s
}

// ErrNoCluster is returned (wrapped) where nothing says which cluster is meant.
var ErrNoCluster = errors.New("no Kubernetes cluster is configured: set kubernetes.kubeconfig or KUBECONFIG, or run the agent in a pod")

// Cluster is a namespace of a Kubernetes cluster. Its methods may be called concurrently.
type Cluster struct {
	namespace string
	config    *rest.Config
	core      *rest.RESTClient
	dialer    *connrotation.Dialer
}

// Connect makes a Cluster; nothing is asked of the API server yet. Its address and credentials come from the first of: the option
// Kubeconfig, the files that KUBECONFIG names, the service account of the pod that this process runs in, ~/.kube/config. A Context needs one of
// the files. The namespace is the option's, else that of KUBERNETES_NAMESPACE, else "default".
func Connect(o Options) (*Cluster, error) {
	config, err := restConfig(o)
	if err != nil {
		return nil, err
	}
	config.UserAgent = "signalman/" + version.Version
	config.QPS, config.Burst = requestsPerSecond, requestsAtOnce
	config.WarningHandler = rest.NoWarnings{}
	dialer := connrotation.NewDialer((&net.Dialer{Timeout: requestLimit, KeepAlive: requestLimit}).DialContext)
	core := rest.CopyConfig(config)
	core.Dial = dialer.DialContext
	core.GroupVersion, core.APIPath = &corev1.SchemeGroupVersion, "/api"
	core.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	httpClient, err := rest.HTTPClientFor(core)
	if err != nil {
		return nil, fmt.Errorf("cannot use the credentials for the Kubernetes cluster: %w", err)
	}
	client, err := rest.RESTClientForConfigAndClient(core, httpClient)
	if err != nil {
		return nil, fmt.Errorf("cannot use the address of the Kubernetes cluster: %w", err)
	}
	c := &Cluster{config: config, core: client, dialer: dialer}
	c.namespace = cmp.Or(o.Namespace, os.Getenv(namespaceVariable), defaultNamespace)
	return c, nil
}

func restConfig(o Options) (*rest.Config, error) {
	rules := &clientcmd.ClientConfigLoadingRules{}
	home, _ := os.UserHomeDir()
	inHome := filepath.Join(home, ".kube", "config")
	switch variable := os.Getenv(clientcmd.RecommendedConfigPathEnvVar); {
	case o.Kubeconfig != "":
		rules.ExplicitPath = o.Kubeconfig
	case variable != "":
		rules.Precedence = filepath.SplitList(variable)
	case inPod() && o.Context == "":
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("cannot use the service account of this pod: %w", err)
		}
		return config, nil
	case home != "" && exists(inHome):
		rules.ExplicitPath = inHome
	default:
		return nil, ErrNoCluster
	}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: o.Context}).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, ErrNoCluster
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use the kubeconfig: %w", err)
	}
	return config, nil
}

// inPod tells whether this process has a pod's service account.
func inPod() bool {
	return os.Getenv("KUBERNETES_SERVICE_HOST") != "" && os.Getenv("KUBERNETES_SERVICE_PORT") != "" && exists(serviceAccount+"/token")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Close ends all connections but those of execs.
func (c *Cluster) Close() { c.dialer.CloseAll() }

// Namespace is where pods are made.
func (c *Cluster) Namespace() string { return c.namespace }

// Server is the API server's address.
func (c *Cluster) Server() string { return c.config.Host }

// Version is the API server's, such as v1.34.4. It needs no rights.
func (c *Cluster) Version(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	raw, err := c.core.Get().AbsPath("/version").Do(ctx).Raw()
	if err != nil {
		return "", c.explain(Right{Verb: "get", Resource: "the version"}, err)
	}
	var info apiversion.Info
	if err := json.Unmarshal(raw, &info); err != nil {
		return "", fmt.Errorf("what answers at %s is no Kubernetes API server: %w", c.Server(), err)
	}
	return info.GitVersion, nil
}

// Can tells whether these credentials have a right in the namespace.
func (c *Cluster) Can(ctx context.Context, r Right) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	review := authorizationv1.SelfSubjectAccessReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authorization.k8s.io/v1", Kind: "SelfSubjectAccessReview"},
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: c.namespace, Verb: r.Verb, Resource: r.Resource, Subresource: r.Subresource,
		}},
	}
	body, err := json.Marshal(review)
	if err != nil {
		return false, fmt.Errorf("cannot ask for the right to %s: %w", r, err)
	}
	raw, err := c.core.Post().AbsPath("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews").
		SetHeader("Content-Type", runtime.ContentTypeJSON).Body(body).Do(ctx).Raw()
	if err != nil {
		return false, c.explain(Right{Verb: "create", Resource: "selfsubjectaccessreviews"}, err)
	}
	if err := json.Unmarshal(raw, &review); err != nil {
		return false, fmt.Errorf("cannot ask for the right to %s: %w", r, err)
	}
	return review.Status.Allowed, nil
}

// Right is a verb on a kind of resource.
type Right struct{ Verb, Resource, Subresource string }

func (r Right) String() string {
	if r.Subresource != "" {
		return r.Verb + " " + r.Resource + "/" + r.Subresource
	}
	return r.Verb + " " + r.Resource
}

// The kinds of errors that callers tell apart.
var (
	// ErrUnreachable is of an API server that can't be reached, or can't answer now: trying again may help.
	ErrUnreachable = errors.New("the Kubernetes API server can't be reached")
	// ErrForbidden is of a right that these credentials lack.
	ErrForbidden = errors.New("the Kubernetes API server forbids it")
	ErrNotFound  = errors.New("it is not there")
	ErrExists    = errors.New("it is there already")
)

// apiError is a text for people with one of the kinds above.
type apiError struct {
	text  string
	kind  error
	cause error
}

func (e *apiError) Error() string { return e.text }

func (e *apiError) Unwrap() []error {
	if e.kind == nil {
		return []error{e.cause}
	}
	return []error{e.kind, e.cause}
}

// explain makes a sentence of an API server's error, or of the connection's.
func (c *Cluster) explain(r Right, err error) error {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		if errors.Is(err, context.Canceled) {
			return err
		}
		text := err.Error()
		if u := (*url.Error)(nil); errors.As(err, &u) {
			text = u.Err.Error()
		}
		if !isConnection(err) {
			return fmt.Errorf("cannot %s: %w", r, err)
		}
		return &apiError{text: fmt.Sprintf("cannot %s: the Kubernetes API server at %s can't be reached (%s)", r, c.Server(), text), kind: ErrUnreachable, cause: err}
	}
	e := &apiError{text: fmt.Sprintf("cannot %s in namespace %s: %s", r, c.namespace, status.Status().Message), cause: err}
	switch {
	case apierrors.IsUnauthorized(err):
		e.text = fmt.Sprintf("cannot %s: the Kubernetes API server at %s doesn't accept these credentials: look at the kubeconfig or the service account (%s)",
			r, c.Server(), status.Status().Message)
	case apierrors.IsForbidden(err) && lacksRight(err):
		e.kind = ErrForbidden
		e.text = fmt.Sprintf("the agent may not %s in namespace %s: give it the Role of packaging/kubernetes/role.yaml (%s)", r, c.namespace, status.Status().Message)
	case apierrors.IsNotFound(err):
		e.kind = ErrNotFound
	case apierrors.IsAlreadyExists(err):
		e.kind = ErrExists
	case apierrors.IsServerTimeout(err), apierrors.IsTimeout(err), apierrors.IsTooManyRequests(err), apierrors.IsServiceUnavailable(err), apierrors.IsInternalError(err):
		e.kind = ErrUnreachable
	}
	return e
}

// isConnection tells the connection's errors from those of this side, as of a plugin for credentials.
func isConnection(err error) bool {
	var network net.Error
	u := (*url.Error)(nil)
	return errors.As(err, &u) || errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// lacksRight tells a lacking right from what is forbidden otherwise, such as a pod beyond a quota or against a policy.
func lacksRight(err error) bool {
	return strings.Contains(err.Error(), " cannot ") && strings.Contains(err.Error(), " resource ")
}
