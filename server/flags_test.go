package server

import (
	"bytes"
	"errors"
	"github.com/kvorum/kvorum/server/logs"
	"os"
	"strings"
	"testing"
	"time"
)

// If this fails, a node without flags is not the node that etcd would be.
func TestDefaults(t *testing.T) {
	r, err := ParseFlags(nil, nil, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	c := r.Config
	if c.Name != "default" || c.DataDir != "default.etcd" || c.ListenClientURLs[0].String() != "http://localhost:2379" {
		t.Errorf("name %q, data %q, client URL %v", c.Name, c.DataDir, c.ListenClientURLs)
	}
	if c.requestTimeout() != 7*time.Second || c.minLeaseTTL() != 2 || c.quotaBytes() != 2<<30 || c.electionTicks() != 10 {
		t.Errorf("request timeout %v, least lease %d, quota %d, election ticks %d", c.requestTimeout(), c.minLeaseTTL(), c.quotaBytes(), c.electionTicks())
	}
}

// If this fails, an operator's mistake in a flag starts a server with other
// settings than they think.
func TestFlagErrors(t *testing.T) {
	for _, c := range []struct {
		args, env []string
		want      string
	}{
		{args: []string{"--bogus"}, want: "flag provided but not defined: -bogus"},
		{args: []string{"--heartbeat-interval", "x"}, want: `invalid value "x" for flag -heartbeat-interval`},
		{args: []string{"--heartbeat-interval", "500"}, want: "should be at least as 5 times"},
		{args: []string{"--election-timeout", "60000"}, want: "is too long"},
		{args: []string{"--initial-cluster-state", "old"}, want: "must be one of new, existing"},
		{args: []string{"--listen-client-urls", "http://127.0.0.1:1"}, want: "--advertise-client-urls is required"},
		{args: []string{"--listen-peer-urls", "http://foo.bar:1"}, want: "expected IP in URL for binding (http://foo.bar:1)"},
		{args: []string{"--listen-peer-urls", "https://127.0.0.1:1"}, want: "cannot listen on TLS for 127.0.0.1:1: KeyFile and CertFile are not presented"},
		{args: []string{"--listen-peer-urls", "unixs://a:1"}, want: "cannot listen on TLS for a:1: KeyFile and CertFile are not presented"},
		{args: []string{"--listen-metrics-urls", "https://127.0.0.1:1"}, want: "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:1 with HTTPS scheme"},
		{args: []string{"--cert-file", "a.pem"}, want: "KeyFile and CertFile must both be present[key: , cert: a.pem]"},
		{args: []string{"--peer-client-key-file", "a.key"}, want: "ClientKeyFile and ClientCertFile must both be present or both absent: key: a.key, cert: ]"},
		{args: []string{"--peer-cert-allowed-cn", "a", "--peer-cert-allowed-hostname", "b,c"}, want: `AllowedCN and AllowedHostname are mutually exclusive (cn=["a"], hostname=["b" "c"])`},
		{args: []string{"--tls-min-version", "TLS1.1"}, want: `unexpected TLS version "TLS1.1" (must be one of: TLS1.2, TLS1.3)`},
		{args: []string{"--tls-min-version", "TLS1.3", "--tls-max-version", "TLS1.2"}, want: "min version (TLS1.3) is greater than max version (TLS1.2)"},
		{args: []string{"--cipher-suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,foo"}, want: `unexpected TLS cipher suite "foo"`},
		{args: []string{"--cipher-suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "--tls-min-version", "TLS1.3"}, want: "cipher suites cannot be configured"},
		{args: []string{"--auto-tls", "--self-signed-cert-validity", "0"}, want: "selfSignedCertValidity is invalid,it should be greater than 0"},
		{args: []string{"--listen-peer-urls", "ftp://127.0.0.1:1"}, want: "URL scheme must be http, https, unix, or unixs"},
		{args: []string{"--auto-compaction-mode", "revision", "--auto-compaction-retention", "1h"}, want: "--auto-compaction-retention"},
		{args: []string{"--auto-compaction-retention", "-1"}, want: "must not be negative"},
		{args: []string{"--max-txn-ops", "0"}, want: "--max-txn-ops"},
		{args: []string{"--auth-token", "magic"}, want: `--auth-token="magic": must be simple, or jwt`},
		{args: []string{"--auth-token", "jwt,sign-method=RS256,priv-key=/none"}, want: "option priv-key=/none"},
		{args: []string{"--auth-token-ttl", "-1"}, want: `invalid value "-1" for flag -auth-token-ttl`},
		{args: []string{"--auth-token-ttl", "999999999999"}, want: "--auth-token-ttl must be between"},
		{args: []string{"--bcrypt-cost", "high"}, want: `invalid value "high" for flag -bcrypt-cost`},
		{args: []string{"--feature-gates", "Bogus=true"}, want: "unrecognized feature gate: Bogus"},
		{args: []string{"--feature-gates", "LeaseCheckpointPersist=true"}, want: "LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint"},
		{args: []string{"--feature-gates", "AllAlpha"}, want: "missing bool value for AllAlpha"},
		{args: []string{"--feature-gates", "AllAlpha=some"}, want: "invalid value of AllAlpha=some"},
		{args: []string{"--corrupt-check-time", "-1s"}, want: "--corrupt-check-time must be >0"},
		{args: []string{"--compact-hash-check-time", "0s"}, want: "--compact-hash-check-time must be >0 (set to 0s)"},
		{args: []string{"--downgrade-check-time", "-1s"}, want: "--downgrade-check-time must not be negative"},
		{args: []string{"--bootstrap-defrag-threshold-megabytes", "x"}, want: `invalid value "x" for flag -bootstrap-defrag-threshold-megabytes`},
		{args: []string{"extra"}, want: `"extra" is not a valid flag`},
		{args: []string{"--name", "a"}, env: []string{"ETCD_NAME=b"}, want: "conflicting environment variable ETCD_NAME"},
		{env: []string{"ETCD_SNAPSHOT_COUNT=many"}, want: "ETCD_SNAPSHOT_COUNT"},
	} {
		var out bytes.Buffer
		_, err := ParseFlags(c.args, c.env, &out)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v %v: error %v, want one with %q", c.args, c.env, err, c.want)
		}
	}
}

// If this fails, a member configured by its environment runs with defaults.
func TestEnvironment(t *testing.T) {
	r, err := ParseFlags([]string{"--snapshot-count=7"}, []string{"ETCD_NAME=m1", "ETCD_BOGUS=1", "ETCD_VERIFY=all", "PATH=/bin"}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Config.Name != "m1" || r.Config.DataDir != "m1.etcd" || r.Config.SnapshotCount != 7 {
		t.Errorf("name %q, data %q, snapshot count %d", r.Config.Name, r.Config.DataDir, r.Config.SnapshotCount)
	}
	if len(r.Warn) != 1 || !strings.Contains(r.Warn[0], "ETCD_BOGUS") {
		t.Errorf("warnings %q, want one about ETCD_BOGUS", r.Warn)
	}
}

// If this fails, usage errors and other errors end with the same exit code.
func TestUsageErrorsAreMarked(t *testing.T) {
	var out bytes.Buffer
	if _, err := ParseFlags([]string{"--bogus"}, nil, &out); !errors.Is(err, ErrUsage) || !strings.Contains(out.String(), "Usage:") {
		t.Errorf("error %v, output %q", err, out.String())
	}
	if code := Main([]string{"--bogus"}, nil, &out, &out); code != exitUsage {
		t.Errorf("exit code %d, want %d", code, exitUsage)
	}
	if code := Main([]string{"--heartbeat-interval", "500"}, nil, &out, &out); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	out.Reset()
	if code := Main([]string{"--version"}, nil, &out, &out); code != exitOK || !strings.HasPrefix(out.String(), "etcd Version: 3.7.") {
		t.Errorf("exit code %d, output %q", code, out.String())
	}
}

// If this fails, auto-compaction keeps another time than it was told.
func TestRetention(t *testing.T) {
	for _, c := range []struct {
		mode, text string
		want       retention
	}{
		{CompactPeriodic, "0", retention{}},
		{CompactPeriodic, "2", retention{period: 2 * time.Hour}},
		{CompactPeriodic, "30m", retention{period: 30 * time.Minute}},
		{CompactRevision, "1000", retention{revisions: 1000}},
	} {
		got, err := parseRetention(c.mode, c.text)
		if err != nil || got != c.want {
			t.Errorf("%s %q: %+v, %v; want %+v", c.mode, c.text, got, err, c.want)
		}
	}
}

// If this fails, log tools made for etcd cannot parse the log.
func TestLogLines(t *testing.T) {
	var out bytes.Buffer
	cfg := DefaultConfig()
	logs.New(&out, 0).Info("hello", "name", cfg.Name, "took", time.Second)
	line := out.String()
	for _, want := range []string{`"level":"info"`, `"ts":"20`, `"caller":"server/flags_test.go:`, `"msg":"hello"`, `"took":"1s"`} {
		if !strings.Contains(line, want) {
			t.Errorf("%s\nlacks %s", line, want)
		}
	}
}

// If this fails, the files in deploy/ do not start a member.
func TestDeployFilesAreAccepted(t *testing.T) {
	read := func(path string) []string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(string(text), "\n")
	}
	var args, environ []string
	for _, line := range read("../deploy/kubernetes/kvorum.yaml") {
		if flag, ok := strings.CutPrefix(strings.TrimSpace(line), "- --"); ok {
			args = append(args, "--"+flag)
		}
	}
	for _, line := range read("../deploy/systemd/kvorum.env") {
		if strings.HasPrefix(line, "ETCD_") {
			environ = append(environ, line)
		}
	}
	for _, given := range []struct{ args, environ []string }{{args, nil}, {nil, environ}} {
		r, err := ParseFlags(given.args, given.environ, &bytes.Buffer{})
		if err != nil || len(r.Warn) > 0 {
			t.Errorf("%v, %v", err, r.Warn)
		}
		if c := r.Config; c.Name != "m1" || !c.ClientTLS.ClientCertAuth || !c.PeerTLS.ClientCertAuth || len(c.ListenMetricsURLs) != 1 {
			t.Errorf("not all was taken: %+v", c)
		}
	}
}
