package connection

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"
)

// largestPEM is how large a file with certificates or a key may be, in bytes.
const largestPEM = 4 << 20

// CACertificates reads the certificates of CAFile; none if it isn't set.
func (s Settings) CACertificates() ([]*x509.Certificate, error) {
	if s.CAFile == "" {
		return nil, nil
	}
	certs, err := readCertificates(s.CAFile)
	if err != nil {
		return nil, fmt.Errorf("cannot use ca-file %s: %w", s.CAFile, err)
	}
	return certs, nil
}

// ClientCertificate reads the agent's own certificate, without those of its authorities; nil if it isn't set.
func (s Settings) ClientCertificate() (*x509.Certificate, error) {
	pair, err := s.keyPair()
	if err != nil || pair == nil {
		return nil, err
	}
	return pair.cert.Leaf, nil
}

func (s Settings) authorities() (*x509.CertPool, error) {
	certs, err := s.CACertificates()
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("cannot read the system's certificate authorities: %w", err)
	}
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool, nil
}

func readCertificates(path string) ([]*x509.Certificate, error) {
	raw, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for n := 1; ; n++ {
		var block *pem.Block
		if block, raw = pem.Decode(raw); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" && block.Type != "TRUSTED CERTIFICATE" {
			return nil, fmt.Errorf("block %d of it is a %s, where certificates must be", n, strings.ToLower(block.Type))
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d in it can't be read: %w", n, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("it holds no certificate in PEM, -----BEGIN CERTIFICATE----- (DER is converted by: openssl x509 -inform der -in FILE)")
	}
	return certs, nil
}

func readPEM(path string) ([]byte, error) {
	info, err := os.Stat(path)
	var raw []byte
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errors.New("it is no regular file")
	case info.Size() > largestPEM:
		err = fmt.Errorf("it is larger than %d MiB", largestPEM>>20)
	default:
		raw, err = os.ReadFile(path)
	}
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	return raw, err
}

// keyPair is the agent's own certificate. It is read again when its files have changed. It is safe for concurrent use.
type keyPair struct {
	certFile, keyFile string

	mu         sync.Mutex
	cert       *tls.Certificate
	certs, key stamp
}

// stamp tells a file's versions apart.
type stamp struct {
	modified time.Time
	size     int64
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{info.ModTime(), info.Size()}
}

// keyPair gives nil if no certificate is set.
func (s Settings) keyPair() (*keyPair, error) {
	switch {
	case s.ClientCert == "" && s.ClientKey == "":
		return nil, nil //nolint:nilnil // none is set
	case s.ClientCert == "":
		return nil, errors.New("client-key is set and client-cert isn't; they go together")
	case s.ClientKey == "":
		return nil, errors.New("client-cert is set and client-key isn't; they go together")
	}
	p := &keyPair{certFile: s.ClientCert, keyFile: s.ClientKey}
	return p, p.read()
}

// read reads both files. What it has had stays if that fails.
func (p *keyPair) read() error {
	certs, key := stampOf(p.certFile), stampOf(p.keyFile) // before, so that a change meanwhile is seen the next time
	if _, err := readCertificates(p.certFile); err != nil {
		return fmt.Errorf("cannot use client-cert %s: %w", p.certFile, err)
	}
	certPEM, err := readPEM(p.certFile)
	if err != nil {
		return fmt.Errorf("cannot use client-cert %s: %w", p.certFile, err)
	}
	keyPEM, err := readPEM(p.keyFile)
	if err != nil {
		return fmt.Errorf("cannot use client-key %s: %w", p.keyFile, err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return fmt.Errorf("cannot use client-key %s: %s", p.keyFile, keyProblem(keyPEM, err, p.certFile))
	}
	p.cert, p.certs, p.key = &pair, certs, key
	return nil
}

// keyProblem says why a key isn't that of a certificate, without a piece of it.
func keyProblem(key []byte, err error, certFile string) string {
	block, _ := pem.Decode(key)
	switch {
	case block == nil:
		return "it holds no key in PEM, -----BEGIN PRIVATE KEY-----"
	case strings.Contains(block.Type, "ENCRYPTED") || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
		return "the key is encrypted; take the passphrase off: openssl pkey -in FILE"
	case strings.Contains(err.Error(), "does not match"):
		return "the key isn't that of the certificate in " + certFile
	}
	return strings.TrimPrefix(err.Error(), "tls: ")
}

// current gives the certificate that the files have now. While they can't be used, as one of them is just being replaced, it is the
// one of before.
func (p *keyPair) current() *tls.Certificate {
	p.mu.Lock()
	defer p.mu.Unlock()
	if stampOf(p.certFile) != p.certs || stampOf(p.keyFile) != p.key {
		_ = p.read() // doctor tells why
	}
	return p.cert
}
