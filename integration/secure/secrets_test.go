package secure

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"github.com/kvorum/kvorum/internal/process"
)

// The secrets of the test; each has the mark, and nothing else has it.
const (
	mark         = "s3cr3tMARK"
	rootPassword = mark + "-root"
	newPassword  = mark + "-changed"
	badPassword  = mark + "-wrong"
	badToken     = mark + "-token"
	signingKey   = mark + "-signing-key-of-tokens"
	storedValue  = mark + "-value"
	tlsKey       = mark + "-key-of-a-certificate"
	urlPassword  = mark + "-in-url"
)

// collector takes traces and keeps their bytes.
type collector struct {
	address string
	mu      sync.Mutex
	got     bytes.Buffer // guarded by mu
}

// rawCodec leaves messages as they came.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(any) (mem.BufferSlice, error) { return nil, nil }

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func newCollector(t *testing.T) *collector {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{address: l.Addr().String()}
	var codec encoding.CodecV2 = rawCodec{}
	g := grpc.NewServer(grpc.ForceServerCodecV2(codec), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		var message []byte
		if err := stream.RecvMsg(&message); err != nil {
			return err
		}
		c.mu.Lock()
		c.got.Write(message)
		c.mu.Unlock()
		return stream.SendMsg(nil)
	}))
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return c
}

// told gathers what everybody could read, by where it was.
type told struct {
	t    *testing.T
	text map[string]string
}

// add keeps a text. Secrets that whoever reads it gave, or is meant to get, are
// taken out first.
func (w *told) add(where, text string, meant ...string) {
	for _, secret := range meant {
		text = strings.ReplaceAll(text, secret, "")
	}
	w.text[where] += text
}

// kvctl runs a command with secrets, and keeps what it says.
func (w *told) kvctl(endpoint string, meant string, env []string, args ...string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitMax)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(programs, "kvctl"), append([]string{"--endpoints", endpoint}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		w.t.Errorf("kvctl %v: %v", args, err)
	}
	w.add("kvctl "+strings.Join(args, " "), string(out), meant)
}

// ask makes an HTTP request and keeps the answer.
func (w *told) ask(method, address, body string, header http.Header, meant ...string) (answer string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitMax)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for name, values := range header {
		r.Header[name] = values
	}
	got, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = got.Body.Close() }()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	w.add(method+" "+got.Request.URL.Path+"?"+got.Request.URL.RawQuery, string(text), meant...)
	return string(text)
}

// file keeps what is in a file, or in those of a folder.
func (w *told) file(path string, meant ...string) {
	w.t.Helper()
	err := filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		w.add(path, string(text), meant...)
		return err
	})
	if err != nil {
		w.t.Error(err)
	}
}

// If this fails, who reads logs, audit lines, traces, metrics, debugging pages or
// a terminal learns what opens doors, or what was stored behind them.
func TestSecretsAreNeverTold(t *testing.T) {
	dir, spans := t.TempDir(), newCollector(t)
	keyFile, auditFile := filepath.Join(dir, "key"), filepath.Join(dir, "audit")
	if err := os.WriteFile(keyFile, []byte(signingKey), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := process.Start(process.Options{Binary: filepath.Join(programs, "kvorum"), Size: 1, Dir: dir, Args: []string{
		"--log-level", "debug", "--enable-pprof", "--enable-v2", "--audit-log", auditFile, "--bcrypt-cost", "4",
		"--auth-token", "jwt,sign-method=HS256,ttl=10m,priv-key=" + keyFile, "--warning-unary-request-duration", "1ns",
		"--enable-distributed-tracing", "--distributed-tracing-address", spans.address, "--distributed-tracing-sampling-rate", "1000000",
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	m, w := c.Members[0], &told{t, map[string]string{}}
	token := w.logins(m)
	w.requests(m, token)
	w.debugging(m)
	if !m.Terminate() {
		t.Error("the member had to be killed")
	}
	lines, _ := m.Log(0)
	w.add("log", strings.Join(lines, "\n"))
	w.file(auditFile)
	w.file(m.Dir, storedValue)
	spans.mu.Lock()
	w.add("traces", spans.got.String())
	spans.mu.Unlock()
	w.beginnings(dir)
	w.judge(token)
}

// logins makes users with passwords that change and fail, and gives a token.
func (w *told) logins(m *process.Member) (token string) {
	at := m.Endpoint()
	for _, args := range [][]string{
		{"user", "add", "root:" + rootPassword}, {"role", "add", "root"}, {"user", "grant-role", "root", "root"},
		{"user", "add", "anna", "--new-user-password", rootPassword, "-w", "json"}, {"auth", "enable"},
		{"--user", "root:" + rootPassword, "put", "k", storedValue},
		{"--user", "root:" + badPassword, "get", "k"},
		{"--user", "root", "--password", badPassword, "-w", "json", "--debug", "get", "k"},
		{"--user", "root:" + badPassword, "--debug", "endpoint", "status"},
		{"--auth-jwt-token", badToken, "-w", "json", "--debug", "put", "k", storedValue},
		{"--user", "anna:" + rootPassword, "-w", "json", "put", "k", storedValue},
		{"--user", "anna:" + rootPassword, "snapshot", "save", filepath.Join(w.t.TempDir(), "no")},
		{"--user", "root:" + rootPassword, "user", "add", "anna:" + newPassword},
		{"--user", "root:" + rootPassword, "--max-request-bytes", "10", "put", "k", storedValue},
		{"--endpoints", "http://root:" + urlPassword + "@" + at, "--debug", "get", "k"},
		{"--endpoints", "ftp://root:" + urlPassword + "@" + at, "-w", "json", "get", "k"},
		{"--cacert", "/none", "get", "k"},
	} {
		w.kvctl(at, "", nil, args...)
	}
	w.kvctl(at, "", []string{"ETCDCTL_PASSWROD=" + badPassword, "ETCDCTL_USER=root:" + badPassword}, "--debug", "get", "k")
	w.kvctl(at, "", []string{"ETCDCTL_API=2"}, "--debug", "-u", "root:"+badPassword, "get", "k")
	w.kvctl(at, "", []string{"ETCDCTL_API=2"}, "--debug", "-u", "root:"+rootPassword, "user", "add", "otto:"+newPassword)
	answer := w.ask(http.MethodPost, m.ClientURL+"/v3/auth/authenticate", fmt.Sprintf(`{"name":"root","password":%q}`, rootPassword), nil)
	found := regexp.MustCompile(`"token":"([^"]+)"`).FindStringSubmatch(answer)
	if found == nil {
		w.t.Fatalf("no token in %s", answer)
	}
	w.text["POST /v3/auth/authenticate?"] = ""
	return found[1]
}

// requests are those that fail in ways that quote what was sent.
func (w *told) requests(m *process.Member, token string) {
	auth := func(text string) http.Header { return http.Header{"Authorization": {text}} }
	for _, r := range []struct {
		path, body string
		header     http.Header
	}{
		{"/v3/auth/authenticate", fmt.Sprintf(`{"name":"root","password":%q}`, badPassword), nil},
		{"/v3/auth/authenticate", `{"name":"root","password":` + badPassword + `}`, nil},
		{"/v3/auth/authenticate", fmt.Sprintf(`{"name":"root","password":{%q:1}}`, badPassword), nil},
		{"/v3/auth/user/add", fmt.Sprintf(`{"name":"","password":%q}`, newPassword), auth(token)},
		{"/v3/auth/user/changepw", fmt.Sprintf(`{"name":"anna","password":%q}`, newPassword), auth(token)},
		{"/v3/kv/range", `{"key":"aw=="}`, auth(badToken)},
		{"/v3/kv/range", `{"key":"aw=="}`, auth(token + badToken)},
		{"/v3/kv/put", fmt.Sprintf(`{"key":"aw==","value":%q}`, storedValue+"!"), auth(token)},
		{"/v3/kv/txn", fmt.Sprintf(`{"success":[{"request_put":{"key":"aw==","value":"czNjcjN0TUFSSy12","lease":"77"}}],%q:1}`, storedValue), auth(token)},
		{"/v2/auth/users/anna", fmt.Sprintf(`{"user":"anna","password":[%q]}`, newPassword), nil},
	} {
		// The one who asks may read what it has said itself.
		w.ask(http.MethodPost, m.ClientURL+r.path, r.body, r.header, badPassword, newPassword, badToken, storedValue)
	}
	basic := strings.Replace(m.ClientURL, "//", "//root:"+badPassword+"@", 1)
	w.ask(http.MethodGet, basic+"/v2/keys/a?quorum=true", "", nil)
	w.ask(http.MethodPut, basic+"/v2/keys/a?value="+storedValue, "", nil)
}

// debugging reads every page that is there for it.
func (w *told) debugging(m *process.Member) {
	for _, page := range []string{
		"/metrics", "/debug/vars", "/debug/events?fam=all&b=0&exp=1", "/debug/requests", "/debug/pprof/", "/debug/pprof/cmdline",
		"/debug/pprof/goroutine?debug=2", "/health", "/version", "/v2/stats/self",
	} {
		text := w.ask(http.MethodGet, m.ClientURL+page, "", nil)
		if page != "/debug/requests" {
			continue
		}
		families := regexp.MustCompile(`\?fam=([^&"]+)&b=`).FindAllStringSubmatch(text, -1)
		if len(families) == 0 {
			w.t.Error("/debug/requests has no families: is this page still what it was?")
		}
		for _, family := range families {
			for b := range 3 {
				w.ask(http.MethodGet, fmt.Sprintf("%s/debug/requests?fam=%s&b=%d&exp=1", m.ClientURL, family[1], b), "", nil)
			}
		}
	}
}

// beginnings are starts that fail because of what holds a secret.
func (w *told) beginnings(dir string) {
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte("-----BEGIN PRIVATE KEY-----\n"+tlsKey+"\n-----END PRIVATE KEY-----\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
	withUser := "http://root:" + urlPassword + "@127.0.0.1:1"
	for i, args := range [][]string{
		{"--auth-token", "jwt,sign-method=RS256,priv-key=" + broken},
		{"--auth-token", "jwt,sign-method=EdDSA,priv-key=" + broken},
		{"--listen-client-urls", "https://127.0.0.1:0", "--advertise-client-urls", "https://127.0.0.1:0", "--cert-file", broken, "--key-file", broken},
		{"--listen-peer-urls", "https://127.0.0.1:0", "--peer-cert-file", broken, "--peer-key-file", broken},
		{"--listen-client-urls", withUser, "--advertise-client-urls", withUser},
		{"--advertise-client-urls", withUser}, {"--initial-cluster", "default=" + withUser}, {"--initial-advertise-peer-urls", withUser + "/%"},
		{"--discovery-endpoints", withUser, "--discovery-token", "t", "--discovery-user", "root", "--discovery-password", rootPassword},
		{"--discovery-endpoints", withUser, "--discovery-token", "t", "--discovery-user=root:" + rootPassword},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), waitMax)
		cmd := exec.CommandContext(ctx, filepath.Join(programs, "kvorum"), append([]string{"--log-level", "debug", "--data-dir", filepath.Join(dir, fmt.Sprint("start", i))}, args...)...)
		out, err := cmd.CombinedOutput()
		cancel()
		if err == nil || ctx.Err() == context.DeadlineExceeded {
			w.t.Errorf("kvorum %v: %v, want it to refuse to start", args, err)
		}
		w.add("kvorum "+strings.Join(args, " "), string(out))
	}
}

func (w *told) judge(token string) {
	w.t.Helper()
	bytesSeen := 0
	for where, text := range w.text {
		bytesSeen += len(text)
		for _, secret := range []string{mark, token, strings.Split(token, ".")[2]} {
			if at := strings.Index(text, secret); at >= 0 {
				w.t.Errorf("%s shows a secret: …%s…", where, text[max(0, at-200):min(len(text), at+60)])
				break
			}
		}
	}
	for _, where := range []string{"log", "traces", "GET /debug/vars?"} {
		if len(w.text[where]) < 500 {
			w.t.Errorf("only %d bytes of %s were looked at", len(w.text[where]), where)
		}
	}
	w.t.Logf("%d places, %d bytes", len(w.text), bytesSeen)
}
