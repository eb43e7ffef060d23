package gateway

import (
	"testing"
	"time"
)

// If this fails, a request outlives the client that said how long it would wait, or ends too early.
func TestParseTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"2H": 2 * time.Hour, "3M": 3 * time.Minute, "4S": 4 * time.Second, "5m": 5 * time.Millisecond, "6u": 6 * time.Microsecond,
		"7n": 7, "0S": 0, "9223372036854775807H": 1<<63 - 1 - (1<<63-1)%time.Hour,
	} {
		if got, ok := parseTimeout(text); !ok || got != want {
			t.Errorf("%s: %v, %v, want %v", text, got, ok, want)
		}
	}
	for _, text := range []string{"S", "1", "nonsense", "1.5S", "1s", "99999999999999999999S"} {
		if got, ok := parseTimeout(text); ok {
			t.Errorf("%s is taken for %v", text, got)
		}
	}
}
