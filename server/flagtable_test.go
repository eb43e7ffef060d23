package server

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// If this fails, a start script written for etcd is refused with "not defined",
// as if its flag did not exist.
func TestEveryFlagOfEtcdIsKnown(t *testing.T) {
	var out bytes.Buffer
	_, _ = ParseFlags([]string{"--help"}, nil, &out)
	names := strings.Fields(string(must[[]byte](t)(os.ReadFile("testdata/flags.txt"))))
	if len(names) < 100 {
		t.Fatalf("testdata/flags.txt has only %d flags", len(names))
	}
	for _, name := range names {
		if !strings.Contains(out.String(), "  -"+name+"\n") && !strings.Contains(out.String(), "  -"+name+" ") {
			t.Errorf("--%s is not defined", name)
		}
	}
	for _, gone := range []string{"proxy", "debug", "log-package-levels", "discovery", "experimental-memory-mlock"} {
		if _, err := ParseFlags([]string{"--" + gone, "x"}, nil, io.Discard); !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "flag provided but not defined: -"+gone) {
			t.Errorf("--%s: %v", gone, err)
		}
	}
}

// If this fails, a member runs without something that its flags asked for, and
// nobody is told.
func TestFlagsWithoutEffect(t *testing.T) {
	others := map[string]string{
		"backend-bbolt-freelist-type": "array",
		"v2-deprecation":              "gone", "enable-grpc-gateway": "false",
	}
	for _, f := range otherFlags() {
		r, err := ParseFlags([]string{"--" + f.name + "=" + f.normal}, nil, io.Discard)
		if err != nil || len(r.Warn) > 0 {
			t.Errorf("--%s=%s: %v, %q", f.name, f.normal, err, r.Warn)
		}
		value := others[f.name]
		if value == "" {
			value = "7"
		}
		if _, ok := (otherValue{f: f}).Get().(time.Duration); ok && f.meaningless == "" {
			value = "7m"
		}
		if f.isBool && f.meaningless == "" {
			value = map[string]string{"true": "false", "false": "true"}[f.normal]
		}
		r, err = ParseFlags([]string{"--" + f.name + "=" + value}, nil, io.Discard)
		switch text := "--" + f.name + "=" + value; {
		case f.meaningless == "" && (err == nil || !strings.Contains(err.Error(), text+" is not supported")):
			t.Errorf("%s: error %v, want one that it is not supported", text, err)
		case f.meaningless != "" && (err != nil || len(r.Warn) != 1 || !strings.Contains(r.Warn[0], text)):
			t.Errorf("%s: %v, warnings %q, want one", text, err, r.Warn)
		}
	}
	for _, wrong := range []string{
		"--backend-bbolt-freelist-type=tree", "--bootstrap-defrag-threshold-megabytes=x", "--v2-deprecation=not-yet",
		"--log-format=xml", "--metrics=all", "--log-level=loud", "--logger=capnslog", "--compact-hash-check-time=often",
		"--enable-grpc-gateway=perhaps", "--downgrade-check-time=x",
	} {
		if _, err := ParseFlags([]string{wrong}, nil, io.Discard); !errors.Is(err, ErrUsage) {
			t.Errorf("%s: %v, want a usage error", wrong, err)
		}
	}
}

// If this fails, a large request limit is set without the warning that operators
// look for.
func TestLargeRequestsAreWarnedOf(t *testing.T) {
	r, err := ParseFlags([]string{"--max-request-bytes=20971520"}, nil, io.Discard)
	if err != nil || len(r.Warn) != 1 || !strings.Contains(r.Warn[0], "exceeded recommended request limit") {
		t.Errorf("%v, %q", err, r.Warn)
	}
}

// If this fails, HTTP stays on the port that an operator has kept for gRPC, or is
// nowhere.
func TestHTTPOnURLsOfItsOwn(t *testing.T) {
	m := startMember(t, func(c *Config) { c.ListenClientHTTPURLs = mustURLs("http://127.0.0.1:0") })
	must[*pb.PutResponse](t)(pb.NewKVClient(m.conn).Put(m.ctx, &pb.PutRequest{Key: []byte("k")}))
	for _, c := range []struct {
		l    listener
		want int
	}{{m.clientListeners[0], http.StatusNotFound}, {m.httpListeners[0], http.StatusOK}} {
		r := must[*http.Request](t)(http.NewRequestWithContext(m.ctx, http.MethodGet, "http://"+c.l.Addr().String()+"/health", nil))
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != c.want {
			t.Errorf("/health at %s: status %d, want %d", c.l.Addr(), answer.StatusCode, c.want)
		}
	}
}

// If this fails, a new process cannot take over a port while the old one still
// serves it, though the flag asks for it.
func TestPortsAreShared(t *testing.T) {
	for _, share := range []bool{true, false} {
		c := Config{ReusePort: share}
		first, err := c.listen(t.Context(), mustURLs("http://127.0.0.1:0")[0])
		if err != nil {
			t.Fatal(err)
		}
		second, err := c.listen(t.Context(), mustURLs("http://" + first.Addr().String())[0])
		if (err == nil) != share {
			t.Errorf("reuse %t: %v", share, err)
		}
		if err == nil {
			second.Close()
		}
		first.Close()
	}
}

// If this fails, the log is not in the form that an operator chose.
func TestLogFormats(t *testing.T) {
	for format, begins := range map[string]string{LogJSON: `{"level":"warn"`, LogConsole: "20"} {
		path := filepath.Join(t.TempDir(), "log")
		r, err := ParseFlags([]string{"--log-format", format, "--log-outputs", path, "--log-level", "warn"}, nil, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		log, err := r.Config.Logger()
		if err != nil {
			t.Fatal(err)
		}
		log.Info("quiet")
		log.Warn("loud")
		text := string(must[[]byte](t)(os.ReadFile(path)))
		if !strings.HasPrefix(text, begins) || !strings.Contains(text, "loud") || strings.Contains(text, "quiet") {
			t.Errorf("%s: %q", format, text)
		}
	}
	for level, logged := range map[string]bool{"error": true, "panic": false, "fatal": false} {
		c := DefaultConfig()
		c.LogLevel = level
		log, err := c.Logger()
		if err != nil || log.Enabled(t.Context(), slog.LevelError) != logged {
			t.Errorf("--log-level=%s: %v, errors logged: want %t", level, err, logged)
		}
	}
	for _, wrong := range [][]string{
		{"--enable-log-rotation"}, {"--enable-log-rotation", "--log-outputs", "a,b"}, {"--log-outputs", "default,a"},
		{"--enable-log-rotation", "--log-outputs", "a", "--log-rotation-config-json", "x"},
	} {
		if _, err := ParseFlags(wrong, nil, io.Discard); err == nil || !strings.Contains(err.Error(), "log") {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	r, err := ParseFlags([]string{"--log-rotation-config-json", `{"maxsize": 1}`}, nil, io.Discard)
	if err != nil || len(r.Warn) != 1 || !strings.Contains(r.Warn[0], "no effect without --enable-log-rotation") {
		t.Errorf("rotation that is not switched on: %v, %q", err, r.Warn)
	}
}
