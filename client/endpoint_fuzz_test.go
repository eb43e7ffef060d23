package client

import "testing"

// FuzzEndpoint: if it fails, a strange endpoint crashes a client, or is dialed
// without an address.
func FuzzEndpoint(f *testing.F) {
	for _, s := range []string{"127.0.0.1:2379", "https://a:1/x", "unix:///tmp/s", "http://u:p@h:1", "://", "[::1]:2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if e, err := parseEndpoint(s); err == nil && (e.network == "" || e.address == "") {
			t.Errorf("%q is %+v", s, e)
		}
	})
}
