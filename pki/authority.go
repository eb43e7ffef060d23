package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

// ErrNotAuthority: the certificate may not sign others. Use the one that
// NewAuthority made.
var ErrNotAuthority = errors.New("not a certificate authority")

// Validity is the time in which a certificate is accepted.
type Validity struct{ From, To time.Time }

// Authority signs certificates. It may be used from any goroutine.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pair Pair
}

// NewAuthority makes an authority that is its own root.
func NewAuthority(commonName string, v Validity) (*Authority, error) {
	template, err := newTemplate(Subject{CommonName: commonName}, v)
	if err != nil {
		return nil, err
	}
	template.IsCA, template.MaxPathLenZero = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	template.ExtKeyUsage = nil
	pair, err := sign(template, nil, elliptic.P256())
	if err != nil {
		return nil, err
	}
	return ParseAuthority(pair)
}

// ParseAuthority reads an authority that Pair gave.
func ParseAuthority(p Pair) (*Authority, error) {
	both, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	key, ok := both.PrivateKey.(crypto.Signer)
	if !ok || !both.Leaf.IsCA {
		return nil, ErrNotAuthority
	}
	return &Authority{cert: both.Leaf, key: key, pair: p}, nil
}

// Pair is the authority's own certificate and key.
func (a *Authority) Pair() Pair { return a.pair }

// Subject is whom a certificate names and what it may do.
type Subject struct {
	CommonName    string
	Organizations []string
	Hosts         []string // IP addresses and DNS names, "*.name" too
	Server        bool     // may answer
	Client        bool     // may call
}

// Issue makes a key and a certificate for it. It does not outlive the
// authority: a chain is accepted only while all of it is valid.
func (a *Authority) Issue(s Subject, v Validity) (Pair, error) {
	if v.To.After(a.cert.NotAfter) {
		v.To = a.cert.NotAfter
	}
	template, err := newTemplate(s, v)
	if err != nil {
		return Pair{}, err
	}
	return sign(template, a, elliptic.P256())
}

// Revoke makes a list, in PEM, of the certificates that are not to be accepted
// any more.
func (a *Authority) Revoke(serials []*big.Int, v Validity) ([]byte, error) {
	list := &x509.RevocationList{Number: big.NewInt(v.From.Unix()), ThisUpdate: v.From, NextUpdate: v.To}
	for _, n := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: v.From})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign revocation list: %w", err)
	}
	return encode("X509 CRL", der), nil
}

// SelfSigned makes a certificate that no authority stands behind, with a P-521
// key.
func SelfSigned(s Subject, v Validity) (Pair, error) {
	template, err := newTemplate(s, v)
	if err != nil {
		return Pair{}, err
	}
	return sign(template, nil, elliptic.P521())
}

func newTemplate(s Subject, v Validity) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("draw serial number: %w", err)
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: s.CommonName, Organization: s.Organizations},
		NotBefore: v.From, NotAfter: v.To, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if s.Server {
		c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if s.Client {
		c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	for i, h := range s.Hosts {
		if slices.Contains(s.Hosts[:i], h) {
			continue
		}
		if ip := net.ParseIP(h); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, h)
		}
	}
	return c, nil
}

// sign makes a key for the template; by nil is self-signed.
func sign(template *x509.Certificate, by *Authority, curve elliptic.Curve) (Pair, error) {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make key: %w", err)
	}
	parent, signer := template, crypto.Signer(key)
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return Pair{}, fmt.Errorf("sign certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("encode key: %w", err)
	}
	return Pair{Cert: encode("CERTIFICATE", der), Key: encode("PRIVATE KEY", keyDER)}, nil
}
