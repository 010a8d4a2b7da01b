package serve

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/signalman-ci/signalman/internal/jobdir"
)

// selfSignedName is the file in the state folder with a certificate of our own and its key.
const selfSignedName = "serve.pem"

// selfSignedLife is how long a certificate of our own is good for, selfSignedRenew how long before that another one is made at the start.
const (
	selfSignedLife  = 5 * 365 * 24 * time.Hour
	selfSignedRenew = 365 * 24 * time.Hour
)

// ErrNoCertificate says that there is none, and none may be made.
var ErrNoCertificate = errors.New("there is no certificate")

// Certificate reads a server's certificate and its key (PEM). Where neither file is there, and selfSigned is set, it is one of our own, which is
// kept in the state folder.
func Certificate(certPath, keyPath string, selfSigned bool, stateDir string) (tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(certPath, keyPath)
	if err == nil {
		return cert, nil
	}
	if !missing(certPath) || !missing(keyPath) {
		return cert, fmt.Errorf("cannot use %s and %s (tls-cert-path, tls-key-path): %w", certPath, keyPath, err)
	}
	if !selfSigned {
		return cert, fmt.Errorf("%w: neither %s nor %s is there; set tls-cert-path and tls-key-path, or tls-self-signed to have one made", ErrNoCertificate, certPath, keyPath)
	}
	return ownCertificate(filepath.Join(stateDir, selfSignedName))
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// ownCertificate reads the one that an earlier start has made, or makes one.
func ownCertificate(path string) (tls.Certificate, error) {
	if cert, err := tls.LoadX509KeyPair(path, path); err == nil && time.Until(cert.Leaf.NotAfter) > selfSignedRenew {
		return cert, nil
	}
	raw, err := makeCertificate(time.Now())
	if err == nil {
		err = jobdir.WriteFile(path, raw)
	}
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("cannot make a certificate: %w", err)
	}
	return tls.LoadX509KeyPair(path, path)
}

func makeCertificate(now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: host, Organization: []string{"Signalman"}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(selfSignedLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
		DNSNames: []string{host, "localhost"}, IPAddresses: append(ownAddresses(), net.IPv4(127, 0, 0, 1), net.IPv6loopback),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...), nil
}

// ownAddresses are those of this host at the moment.
func ownAddresses() []net.IP {
	var out []net.IP
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range addresses {
		if network, ok := a.(*net.IPNet); ok && network.IP.IsGlobalUnicast() {
			out = append(out, network.IP)
		}
	}
	return out
}
