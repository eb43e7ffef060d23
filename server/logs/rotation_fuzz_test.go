package logs

import "testing"

// FuzzRotation: if it fails, a mistake in the settings of rotation ends the
// server with a panic.
func FuzzRotation(f *testing.F) {
	f.Add(`{"maxsize": 100, "maxage": 0}`)
	f.Add(`{"maxsize": -1e9}`)
	f.Fuzz(func(t *testing.T, text string) {
		if r, err := ParseRotation(text); err == nil && r == nil {
			t.Errorf("%q is nothing", text)
		}
	})
}
