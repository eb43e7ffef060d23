package secure

import "testing"

// FuzzFiles: if it fails, a certificate, key or revocation file that is replaced
// by a broken one ends a running member.
func FuzzFiles(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"), []byte("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if p, err := parsePair([][]byte{a, b}); err == nil && p == nil {
			t.Error("no pair, and no error")
		}
		if p, err := parsePool([][]byte{a}); err == nil && p == nil {
			t.Error("no authorities, and no error")
		}
		_, _ = parseLists([][]byte{b}) // an empty list is one
	})
}
