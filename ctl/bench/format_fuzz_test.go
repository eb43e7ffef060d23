package bench

import "testing"

// FuzzFormat: if it fails, a report comes out in a format that does not exist.
func FuzzFormat(f *testing.F) {
	f.Add("json")
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := parseFormat(text); err == nil && got != JSON && got != CSV && got != Table {
			t.Errorf("%q is %q", text, got)
		}
	})
}
