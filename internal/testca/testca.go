// Package testca is a certificate authority of a test's own.
package testca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// CA is an authority that nobody trusts by himself.
type CA struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Leaf is what a certificate is made of. NotBefore and NotAfter are an hour ago and in 90 days if they are zero.
type Leaf struct {
	// Hosts are names and addresses; a client's certificate needs none.
	Hosts               []string
	NotBefore, NotAfter time.Time
}

// New makes an authority.
func New(t *testing.T) *CA {
	t.Helper()
	ca := &CA{t: t, dir: t.TempDir(), key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "authority of a test"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &ca.key.PublicKey, ca.key)
	require.NoError(t, err)
	ca.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	return ca
}

// File writes the authority's certificate to a file, and gives its path.
func (ca *CA) File() string {
	ca.t.Helper()
	path := filepath.Join(ca.dir, "ca.pem")
	writePEM(ca.t, path, "CERTIFICATE", ca.cert.Raw)
	return path
}

// Pool is a pool with the authority alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// Issue writes a certificate for a server or a client, and its key, to files.
func (ca *CA) Issue(certFile, keyFile string, l Leaf) {
	ca.t.Helper()
	template := &x509.Certificate{
		SerialNumber: serial(ca.t), Subject: pkix.Name{CommonName: "leaf of a test"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   l.NotBefore, NotAfter: l.NotAfter,
	}
	if l.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if l.NotAfter.IsZero() {
		template.NotAfter = time.Now().AddDate(0, 0, 90)
	}
	for _, host := range l.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	key := newKey(ca.t)
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, ca.key)
	require.NoError(ca.t, err)
	writePEM(ca.t, certFile, "CERTIFICATE", der)
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(ca.t, err)
	writePEM(ca.t, keyFile, "PRIVATE KEY", raw)
}

// Certificate makes a certificate for a server.
func (ca *CA) Certificate(l Leaf) tls.Certificate {
	ca.t.Helper()
	cert, key := filepath.Join(ca.dir, "leaf.pem"), filepath.Join(ca.dir, "leaf.key")
	ca.Issue(cert, key, l)
	pair, err := tls.LoadX509KeyPair(cert, key)
	require.NoError(ca.t, err)
	return pair
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func serial(t *testing.T) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	return n
}

// writePEM replaces a file by rename, so that it is never half there.
func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}
