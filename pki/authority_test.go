package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func hours(n int) Validity {
	now := time.Now()
	return Validity{From: now.Add(-time.Hour), To: now.Add(time.Duration(n) * time.Hour)}
}

// If this fails, members that were given certificates refuse each other.
func TestIssuedCertificatesAreAccepted(t *testing.T) {
	ca, err := NewAuthority("ca", hours(10))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(Subject{CommonName: "m1", Hosts: []string{"10.0.0.1", "m1.example", "10.0.0.1"}, Server: true, Client: true}, hours(1000))
	if err != nil {
		t.Fatal(err)
	}
	got, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.Pair().Cert)
	for _, host := range []string{"10.0.0.1", "m1.example"} {
		for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
			if _, err := got.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, KeyUsages: []x509.ExtKeyUsage{use}}); err != nil {
				t.Errorf("%s, use %d: %v", host, use, err)
			}
		}
	}
	if len(got.Leaf.IPAddresses) != 1 {
		t.Errorf("addresses %v, want each once", got.Leaf.IPAddresses)
	}
	if caCert, _ := Certificates(ca.Pair().Cert); got.Leaf.NotAfter.After(caCert[0].NotAfter) {
		t.Errorf("valid to %v, after its authority, %v", got.Leaf.NotAfter, caCert[0].NotAfter)
	}
	if _, err := ParseAuthority(pair); !errors.Is(err, ErrNotAuthority) {
		t.Errorf("a member's certificate as authority: %v", err)
	}
}

// If this fails, another user of the machine can read a private key.
func TestKeysArePrivate(t *testing.T) {
	pair, err := SelfSigned(Subject{Organizations: []string{"etcd"}, Hosts: []string{"localhost"}, Server: true}, hours(1))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	at := Paths{Cert: filepath.Join(dir, "c.pem"), Key: filepath.Join(dir, "k.pem")}
	for range 2 { // the second time replaces
		if err := pair.Write(at); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(at.Key)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the key %v, %v; want 0600", info.Mode(), err)
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 2 {
		t.Errorf("%d files, want the two of the pair", len(left))
	}
	if again, err := ReadPair(at); err != nil || string(again.Cert) != string(pair.Cert) {
		t.Errorf("read again: %v", err)
	}
}

// If this fails, a broken certificate or revocation file stops a member with a
// panic instead of an error.
func FuzzDecoders(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"))
	f.Add([]byte{0x30, 0x00})
	f.Fuzz(func(t *testing.T, text []byte) {
		if certs, err := Certificates(text); (err == nil) != (len(certs) > 0) {
			t.Errorf("%d certificates and error %v", len(certs), err)
		}
		if lists, err := RevocationLists(text); (err == nil) != (len(lists) > 0) {
			t.Errorf("%d lists and error %v", len(lists), err)
		}
	})
}
