package server

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const yamlConfig = `
name: m1
snapshot-count: 77
pre-vote: false
listen-client-urls: http://127.0.0.1:1,http://127.0.0.1:2
advertise-client-urls: http://a:1
watch-progress-notify-interval: 5000000000
max-concurrent-streams: 9
log-outputs: [stderr, stdout]
auto-compaction-retention: "3"
what-is-this: 1
cert-file: not-here
client-transport-security:
  trusted-ca-file: ca.pem
  allowed-cn: a,b
  what: 2
peer-transport-security:
  cert-file: p.pem
  key-file: p.key
  client-cert-auth: true
  allowed-cn: [c]
  skip-client-san-verification: true
`

const jsonConfig = `{"name":"m1","snapshot-count":77,"pre-vote":false,"listen-client-urls":"http://127.0.0.1:1,http://127.0.0.1:2",
"advertise-client-urls":"http://a:1","watch-progress-notify-interval":5000000000,"max-concurrent-streams":9,
"log-outputs":["stderr","stdout"],"auto-compaction-retention":"3",
"client-transport-security":{"trusted-ca-file":"ca.pem","allowed-cn":"a,b"},
"peer-transport-security":{"cert-file":"p.pem","key-file":"p.key","client-cert-auth":true,"allowed-cn":"c","skip-client-san-verification":true}}`

// If this fails, a member with a configuration file runs with other settings
// than the file says.
func TestConfigFile(t *testing.T) {
	fromFlags, err := ParseFlags([]string{
		"--name=m1", "--snapshot-count=77", "--pre-vote=false", "--listen-client-urls=http://127.0.0.1:1,http://127.0.0.1:2",
		"--advertise-client-urls=http://a:1", "--watch-progress-notify-interval=5s", "--max-concurrent-streams=9",
		"--log-outputs=stderr,stdout", "--auto-compaction-retention=3", "--trusted-ca-file=ca.pem",
		"--peer-cert-file=p.pem", "--peer-key-file=p.key", "--peer-client-cert-auth", "--peer-cert-allowed-cn=c", "--peer-skip-client-san-verification",
	}, nil, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	want := fromFlags.Config
	want.ClientTLS.AllowedCNs = []string{"a", "b"} // no flag has it
	for _, text := range []string{yamlConfig, jsonConfig} {
		path := writeConfig(t, text)
		for _, given := range []struct{ args, environ []string }{
			{[]string{"--config-file", path, "--snapshot-count=5"}, []string{"ETCD_NAME=other"}},
			{nil, []string{"ETCD_CONFIG_FILE=" + path}},
		} {
			r, err := ParseFlags(given.args, given.environ, &bytes.Buffer{})
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(r.Config, want) {
				t.Errorf("%v: got  %+v\nwant %+v", given, r.Config, want)
			}
			warned := strings.Join(r.Warn, "\n")
			for word, want := range map[string]bool{
				"what-is-this": text == yamlConfig, "file: cert-file": text == yamlConfig, "client-transport-security.what": text == yamlConfig,
				"--snapshot-count, ETCD_NAME": given.args != nil,
			} {
				if strings.Contains(warned, word) != want {
					t.Errorf("%v: warning about %q: want %t in\n%s", given, word, want, warned)
				}
			}
		}
	}
	if want.ProgressInterval != 5*time.Second || want.MaxConcurrentStreams != 9 {
		t.Errorf("the flags themselves were not taken: %+v", want)
	}
}

// If this fails, a mistake in a configuration file starts a member with other
// settings than the operator thinks.
func TestConfigFileErrors(t *testing.T) {
	for text, want := range map[string]string{
		"grpc-keepalive-interval: 10m":                  "error unmarshaling JSON: json: cannot unmarshal string into Go struct field grpc-keepalive-interval of type time.Duration",
		"grpc-keepalive-interval: 1.5":                  "of type time.Duration",
		"pre-vote: 'yes, please'":                       "cannot unmarshal string into Go struct field pre-vote of type bool",
		"snapshot-count: many":                          "snapshot-count of type uint64",
		"snapshot-count: -1":                            "invalid value \"-1\" for snapshot-count",
		"initial-cluster-state: old":                    "must be one of new, existing",
		"name: {a: b}":                                  "cannot unmarshal object",
		"client-transport-security: 3":                  "cannot unmarshal number",
		"listen-client-urls: http://127.0.0.1:1":        "--advertise-client-urls is required",
		"client-transport-security: {cert-file: a.pem}": "KeyFile and CertFile must both be present",
		"discovery-config: {token: abc}":                "both --discovery-token and --discovery-endpoints must be set",
		"config-file: x":                                "cannot name another",
		"\tname: x":                                     "yaml",
	} {
		_, err := ParseFlags([]string{"--config-file", writeConfig(t, text)}, nil, &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
	}
	if _, err := ParseFlags([]string{"--config-file", "/nowhere/at/all"}, nil, &bytes.Buffer{}); err == nil {
		t.Error("a missing file was accepted")
	}
	if _, err := ParseFlags([]string{"--config-file=a"}, []string{"ETCD_CONFIG_FILE=b"}, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "is shadowed") {
		t.Errorf("flag and variable together: %v", err)
	}
}
