package wal

import "testing"

// FuzzNames: if it fails, a file that does not belong in the folder is taken for
// a segment, or a segment is passed over.
func FuzzNames(f *testing.F) {
	f.Add("0000000000000001-000000000000000a.wal")
	f.Add("-.wal")
	f.Fuzz(func(t *testing.T, name string) {
		a, b, ok := parsePair(name, ".wal")
		if v, isHex := parseHex16(name); isHex && len(name) != 16 {
			t.Errorf("%q is the number %x", name, v)
		}
		if ok && len(name) != 16+1+16+len(".wal") {
			t.Errorf("%q is %x and %x", name, a, b)
		}
	})
}
