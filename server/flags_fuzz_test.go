package server

import (
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzFlags: if it fails, a mistake in a flag or variable ends the server with a
// panic in the place of a message.
func FuzzFlags(f *testing.F) {
	for _, name := range []string{"listen-client-urls", "initial-cluster", "auto-compaction-retention", "cors", "quota-backend-bytes", "auth-token", "feature-gates", "log-rotation-config-json", "cipher-suites"} {
		f.Add(name, "http://127.0.0.1:1,x", "ETCD_NAME=a")
		f.Add(name, "-1", "ETCD_"+name+"=%%")
	}
	f.Fuzz(func(_ *testing.T, name, value, variable string) {
		if name == "config-file" || strings.Contains(strings.ToUpper(variable), "CONFIG") {
			return // reads files of this machine
		}
		r, err := ParseFlags([]string{"--" + name + "=" + value}, []string{variable}, io.Discard)
		if err == nil {
			_ = r.Config.Validate() // an error is an answer
		}
		_, _ = parseInitialCluster(value, name)
		_, _ = parseRetention(name, value)
	})
}

// FuzzConfigFile: if it fails, a broken configuration file ends the server with a
// panic in the place of a message.
func FuzzConfigFile(f *testing.F) {
	f.Add([]byte("name: a\nlisten-client-urls: http://127.0.0.1:1\nclient-transport-security: {cert-file: x}\n"))
	f.Add([]byte(`{"quota-backend-bytes": 1e99, "initial-cluster": [1]}`))
	f.Add([]byte("a: &a [*a,*a]\n<<: *a"))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "c")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		r := FlagResult{Config: DefaultConfig()}
		_ = r.readFile(path, flag.NewFlagSet("", flag.ContinueOnError), nil) // an error is an answer
	})
}

// FuzzLeaseEnvelopes: if it fails, a member that asks about a lease ends the one
// that it asks, or the answer ends it.
func FuzzLeaseEnvelopes(f *testing.F) {
	f.Add([]byte{0x0a, 2, 8, 1})
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e leaseTTLEnvelope
		if err := errors.Join(e.unmarshalRequest(b), e.unmarshalResponse(b)); err == nil && (e.request == nil || e.response == nil) {
			t.Error("nothing was read, and no error told")
		}
	})
}
