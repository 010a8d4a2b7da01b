package testcluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Namespace makes one that pods can be made in. It goes at the test's end with all that it has; what doesn't go is an error.
func (c *Cluster) Namespace(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	made, err := c.Client.CoreV1().Namespaces().Create(ctx,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "signalman-test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("cannot make a namespace: %v", err)
	}
	t.Cleanup(func() { c.removeNamespace(t, made.Name) })
	// Pods are refused without it.
	if err := until(ctx, func(ctx context.Context) error {
		_, err := c.Client.CoreV1().ServiceAccounts(made.Name).Get(ctx, "default", metav1.GetOptions{})
		return err
	}); err != nil {
		t.Fatalf("the namespace gets no service account: %v", err)
	}
	return made.Name
}

func (c *Cluster) removeNamespace(t testing.TB, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	// Pods that a failed test has left get no half minute to end in.
	second := int64(1)
	if err := c.Client.CoreV1().Pods(name).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &second}, metav1.ListOptions{}); err != nil {
		t.Errorf("cannot remove the pods of a namespace: %v", err)
	}
	if err := c.Client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		t.Errorf("cannot remove a namespace: %v", err)
	}
	if err := until(ctx, func(ctx context.Context) error {
		left, err := c.Client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return errors.New(why(left))
	}); err != nil {
		t.Errorf("the namespace %s doesn't go: %v", name, err)
	}
}

// why tells what keeps a namespace.
func why(namespace *corev1.Namespace) string {
	var reasons []string
	for _, condition := range namespace.Status.Conditions {
		if condition.Status == corev1.ConditionTrue {
			reasons = append(reasons, condition.Message)
		}
	}
	return strings.Join(append(reasons, string(namespace.Status.Phase)), "; ")
}

// Account makes a service account in a namespace that has the rights of role, which is made there too, and nothing else. It gives a
// kubeconfig for it, whose token holds for an hour.
func (c *Cluster) Account(t testing.TB, namespace string, role *rbacv1.Role) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	token, err := c.account(ctx, namespace, role)
	if err != nil {
		t.Fatalf("cannot make a service account: %v", err)
	}
	config, err := load(c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	current := config.Contexts[config.CurrentContext]
	current.Namespace = namespace
	config.AuthInfos = map[string]*api.AuthInfo{current.AuthInfo: {Token: token}}
	return save(t, config)
}

// account gives a token.
func (c *Cluster) account(ctx context.Context, namespace string, role *rbacv1.Role) (string, error) {
	account, err := c.Client.CoreV1().ServiceAccounts(namespace).Create(ctx,
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{GenerateName: "account-"}}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	own := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: account.Name}, Rules: role.Rules}
	if _, err := c.Client.RbacV1().Roles(namespace).Create(ctx, own, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: account.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: account.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: account.Name, Namespace: namespace}},
	}
	if _, err := c.Client.RbacV1().RoleBindings(namespace).Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	if err := c.waitForRights(ctx, namespace, account.Name, role.Rules); err != nil {
		return "", err
	}
	hour := int64(3600)
	token, err := c.Client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account.Name,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &hour}}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return token.Status.Token, nil
}

// waitForRights waits until the API server knows the binding: it reads roles a little later than they are written.
func (c *Cluster) waitForRights(ctx context.Context, namespace, account string, rules []rbacv1.PolicyRule) error {
	if len(rules) == 0 {
		return nil
	}
	first := func(list []string) string {
		if len(list) == 0 {
			return ""
		}
		return list[0]
	}
	resource, subresource, _ := strings.Cut(first(rules[0].Resources), "/")
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: "system:serviceaccount:" + namespace + ":" + account,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: namespace, Verb: first(rules[0].Verbs), Group: first(rules[0].APIGroups),
			Resource: resource, Subresource: subresource, Name: first(rules[0].ResourceNames),
		},
	}}
	return until(ctx, func(ctx context.Context) error {
		answer, err := c.Client.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		if err == nil && !answer.Status.Allowed {
			err = fmt.Errorf("the role doesn't count: %s", answer.Status.Reason)
		}
		return err
	})
}

// load reads the current context of a kubeconfig, with the content of the files that it names.
func load(kubeconfig string) (*api.Config, error) {
	config, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		return nil, err
	}
	if err := clientcmd.ResolveLocalPaths(config); err != nil {
		return nil, err
	}
	if err := api.MinifyConfig(config); err != nil {
		return nil, err
	}
	return config, api.FlattenConfig(config)
}

func save(t testing.TB, config *api.Config) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}
