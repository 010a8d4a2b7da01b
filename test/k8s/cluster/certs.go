package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// certLife is longer than any cluster for tests lives.
const certLife = 365 * 24 * time.Hour

// identities are the certificates, and for whom: in Kubernetes the common name is the user, an organization a group.
var identities = []struct {
	file, user, group string
	// addresses are set for those that serve.
	addresses []string
}{
	{file: "apiserver", user: "kube-apiserver", addresses: []string{
		NodeIP, "127.0.0.1", apiIP, "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}},
	{file: "apiserver-kubelet", user: "kube-apiserver-kubelet-client", group: "system:masters"},
	{file: "kubelet", user: "system:node:" + nodeName, group: "system:nodes", addresses: []string{NodeIP, nodeName}},
	{file: "controller-manager", user: "system:kube-controller-manager"},
	{file: "scheduler", user: "system:kube-scheduler"},
	{file: "admin", user: "kubernetes-admin", group: "system:masters"},
}

func pki(file string) string { return filepath.Join(Dir, "pki", file) }

// makeCertificates makes an authority, what it signs, and the key that signs the tokens of service accounts; kubeconfigs for those that
// call the API server.
func makeCertificates() error {
	authority, err := newAuthority()
	if err != nil {
		return err
	}
	if err := writeFile(pki("ca.crt"), authority.certificate, 0o600); err != nil {
		return err
	}
	for _, id := range identities {
		certificate, key, err := authority.issue(id.user, id.group, id.addresses)
		if err != nil {
			return err
		}
		if err := writeFile(pki(id.file+".crt"), certificate, 0o600); err != nil {
			return err
		}
		if err := writeFile(pki(id.file+".key"), key, 0o600); err != nil {
			return err
		}
		config, err := json.MarshalIndent(kubeconfig(id.user, authority.certificate, certificate, key), "", "  ")
		if err != nil {
			return err
		}
		if err := writeFile(pki(id.file+".kubeconfig"), config, 0o600); err != nil {
			return err
		}
	}
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key, err := encodeKey(signer)
	if err != nil {
		return err
	}
	if err := writeFile(pki("service-accounts.key"), key, 0o600); err != nil {
		return err
	}
	admin, err := os.ReadFile(pki("admin.kubeconfig"))
	if err != nil {
		return err
	}
	return writeFile(Kubeconfig(), admin, 0o600)
}

type authority struct {
	parsed      *x509.Certificate
	key         *ecdsa.PrivateKey
	certificate []byte // PEM
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "signalman-k8s"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(certLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{parsed: parsed, key: key, certificate: encode("CERTIFICATE", der)}, nil
}

// issue gives a certificate and its key as PEM.
func (a *authority) issue(user, group string, addresses []string) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: user},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(certLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if group != "" {
		template.Subject.Organization = []string{group}
	}
	if len(addresses) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, address := range addresses {
		if ip := net.ParseIP(address); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, address)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.parsed, private.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	key, err = encodeKey(private)
	return encode("CERTIFICATE", der), key, err
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	return encode("EC PRIVATE KEY", der), err
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// kubeconfig holds all it needs, so that it can be copied. JSON is YAML.
func kubeconfig(user string, authority, certificate, key []byte) any {
	type object = map[string]any
	return object{
		"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"clusters": []object{{"name": "test", "cluster": object{"server": apiURL, "certificate-authority-data": authority}}},
		"users":    []object{{"name": user, "user": object{"client-certificate-data": certificate, "client-key-data": key}}},
		"contexts": []object{{"name": "test", "context": object{"cluster": "test", "user": user}}},
	}
}
