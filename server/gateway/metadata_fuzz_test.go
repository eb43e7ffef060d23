package gateway

import "testing"

// FuzzMetadata: if it fails, a header of an HTTP request ends the process.
func FuzzMetadata(f *testing.F) {
	f.Add("x-bin", "AAEC", "10S")
	f.Add("token", "%", "99999999H")
	f.Fuzz(func(t *testing.T, name, value, timeout string) {
		if got, err := decodeBinary(name, []string{value}); err == nil && len(got) != 1 {
			t.Errorf("%q is %q", value, got)
		}
		if d, ok := parseTimeout(timeout); ok && d < 0 {
			t.Errorf("%q is %s", timeout, d)
		}
	})
}
