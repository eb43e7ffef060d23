package pki

import (
	"path/filepath"
	"testing"
	"time"
)

// FuzzPairs: if it fails, a broken file of a certificate or key stops a program
// with a panic, or is taken for an authority.
func FuzzPairs(f *testing.F) {
	now := time.Now()
	ca, err := NewAuthority("a", Validity{From: now, To: now.Add(time.Hour)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ca.Pair().Cert, ca.Pair().Key)
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		at := Paths{Cert: filepath.Join(t.TempDir(), "c"), Key: filepath.Join(t.TempDir(), "k")}
		if err := (Pair{Cert: cert, Key: key}).Write(at); err != nil {
			t.Fatal(err)
		}
		pair, err := ReadPair(at)
		if err != nil {
			t.Fatal(err)
		}
		if a, err := ParseAuthority(pair); err == nil && !a.cert.IsCA {
			t.Error("a certificate that is no authority was taken for one")
		}
	})
}
