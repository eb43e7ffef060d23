package bench

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Endpoints are written in every form that etcdctl takes; one that is misread measures nothing, or without TLS.
func TestTargets(t *testing.T) {
	for endpoint, want := range map[string]struct {
		target string
		secure bool
	}{
		"a:1": {"passthrough:///a:1", false}, "http://a:1": {"passthrough:///a:1", false},
		"https://a:1/": {"passthrough:///a:1", true}, "unix:///x/y": {"unix:/x/y", false}, "unixs://y:1": {"unix:y:1", true},
	} {
		if target, secure := target(endpoint); target != want.target || secure != want.secure {
			t.Errorf("%s is %s secure %t, want %v", endpoint, target, secure, want)
		}
	}
}

// With --cacert the tool must speak TLS and check the server; without it such a server must not be measured.
func TestTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != rpcStatus {
			t.Errorf("called %s", r.URL.Path)
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = w.Write(make([]byte, 5)) // an empty message
		w.Header().Set("Grpc-Status", "0")
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := tlsConfig(tlsFiles{ca: ca, plain: true})
	if err != nil || config == nil {
		t.Fatalf("with --cacert: %v, %v", config, err)
	}
	o := Defaults(Put)
	o.Endpoints = []string{strings.TrimPrefix(server.URL, "https://")}
	for name, test := range map[string]struct {
		config *tls.Config
		works  bool
	}{"trusted": {config, true}, "unknown authority": {&tls.Config{MinVersion: tls.VersionTLS12}, false}, "no TLS": {nil, false}} {
		o.TLS = test.config
		p, err := dial(context.Background(), &o)
		if (err == nil) != test.works {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			p.close()
		}
	}
	if config, err := tlsConfig(tlsFiles{plain: true}); config != nil || err != nil {
		t.Errorf("without TLS flags: %v, %v", config, err)
	}
	for _, files := range []tlsFiles{{ca: "/none"}, {cert: ca}} {
		if _, err := tlsConfig(files); err == nil {
			t.Errorf("%+v: no error", files)
		}
	}
}
