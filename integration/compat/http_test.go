package compat

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/kvorum/kvorum/integration/compat/process"
)

// httpPair is a real etcd and a Kvorum in the same state.
type httpPair struct {
	etcd, kvorum *process.Cluster
	metrics      map[*process.Cluster]string // a metrics URL of the first member
}

// startPair starts both with the same flags.
func startPair(t *testing.T, size int, args ...string) *httpPair {
	t.Helper()
	ports, err := process.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	p := &httpPair{metrics: map[*process.Cluster]string{}}
	for i, side := range []struct {
		binary string
		to     **process.Cluster
	}{{etcdBinary(t), &p.etcd}, {kvorumBinary(t), &p.kvorum}} {
		url := fmt.Sprintf("http://127.0.0.1:%d", ports[i])
		all := args
		if size == 1 {
			all = append([]string{"--listen-metrics-urls", url}, args...)
		}
		*side.to = startCluster(t, process.Options{Binary: side.binary, Size: size, Args: all})
		p.metrics[*side.to] = url
	}
	return p
}

// ask is one request that both are asked.
type ask struct {
	method, path, body string
	header             http.Header
	onMetrics          bool
	status             int    // when a difference is meant: what Kvorum answers
	why                string // the reason
}

func (a ask) String() string {
	return fmt.Sprintf("%s %s %.60s %v", a.method, a.path, a.body, a.header)
}

// reply is what can be compared of an answer.
type reply struct {
	status int
	header map[string]string
	body   string
}

func (p *httpPair) do(t *testing.T, client *http.Client, c *process.Cluster, a ask) reply {
	t.Helper()
	base := c.Members[0].ClientURL
	if a.onMetrics {
		base = p.metrics[c]
	}
	ctx, cancel := context.WithTimeout(t.Context(), waitMax)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, a.method, base+a.path, strings.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(r.Header, a.header)
	if host := a.header.Get("Host"); host != "" {
		r.Host = host
	}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatalf("%s: %v", a, err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatalf("%s: %v", a, err)
	}
	return reply{answer.StatusCode, steadyHeader(answer.Header), steadyBody(a.path, string(body))}
}

// steadyHeader leaves out what differs from run to run, and Vary, which newer
// libraries and Kvorum's CORS set as caches need it.
func steadyHeader(h http.Header) map[string]string {
	kept := map[string]string{}
	for name, values := range h {
		if !slices.Contains([]string{"Date", "Content-Length", "Vary", "Trailer"}, name) {
			kept[name] = strings.Join(values, ", ")
		}
	}
	return kept
}

var unsteady = regexp.MustCompile(`"(cluster_id|member_id|raft_term|memberID|leader|raftIndex|raftTerm|raftAppliedIndex|dbSize|dbSizeInUse)":"?\d+"?|"etcdserver":"[^"]+"`)

// steadyBody makes bodies comparable: the ids, the version, the spaces in JSON
// and the order of checks differ from run to run.
func steadyBody(path, body string) string {
	switch {
	case path == "/metrics" || strings.HasPrefix(path, "/debug/"):
		return ""
	case strings.HasPrefix(path, "/readyz"):
		lines := strings.Split(body, "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	var all strings.Builder
	for decoder := json.NewDecoder(strings.NewReader(body)); ; {
		var one json.RawMessage
		if err := decoder.Decode(&one); err != nil {
			break
		}
		var compact bytes.Buffer
		_ = json.Compact(&compact, one)
		all.WriteString(compact.String() + "\n")
	}
	if all.Len() > 0 {
		body = all.String()
	}
	return unsteady.ReplaceAllString(strings.ReplaceAll(body, "\u00a0", " "), `"$1":…`)
}

func (p *httpPair) compare(t *testing.T, client *http.Client, asks ...ask) {
	t.Helper()
	for _, a := range asks {
		want, got := p.do(t, client, p.etcd, a), p.do(t, client, p.kvorum, a)
		if a.why != "" {
			if got.status != a.status {
				t.Errorf("%s: %d %s; it should be %d since %s", a, got.status, got.body, a.status, a.why)
			}
			continue
		}
		if got.status != want.status || got.body != want.body || !maps.Equal(got.header, want.header) {
			t.Errorf("%s:\netcd   %d %v\n%s\nkvorum %d %v\n%s", a, want.status, want.header, want.body, got.status, got.header, got.body)
		}
	}
}

func gets(paths ...string) (all []ask) {
	for _, path := range paths {
		all = append(all, ask{method: http.MethodGet, path: path})
	}
	return all
}

func posts(path string, bodies ...string) (all []ask) {
	for _, body := range bodies {
		all = append(all, ask{method: http.MethodPost, path: path, body: body})
	}
	return all
}

var probePaths = []string{
	"/health", "/health?serializable=true", "/health?exclude=NOSPACE", "/health?exclude=NOSPACE&exclude=CORRUPT", "/health?exclude=", "/health/",
	"/livez", "/livez?verbose", "/livez?exclude=serializable_read&verbose", "/livez/serializable_read", "/livez/data_corruption", "/livez/nope",
	"/readyz", "/readyz?verbose", "/readyz?exclude=data_corruption&verbose", "/readyz?exclude=nope&verbose", "/readyz?allowlist=data_corruption&verbose",
	"/readyz/data_corruption", "/readyz/serializable_read?verbose", "/readyz/linearizable_read", "/readyz/non_learner?verbose", "/readyz/nope",
}

// noRedirects is a client that shows what a server answers.
func noRedirects(transport http.RoundTripper) *http.Client {
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// If this fails, a probe, a dashboard or a script finds another answer than
// etcd's.
func TestHTTPAnswersAsEtcd(t *testing.T) {
	p := startPair(t, 1, "--enable-pprof")
	client := noRedirects(&http.Transport{DisableCompression: true})
	p.compare(t, client, gets(probePaths...)...)
	for _, path := range []string{"/health", "/livez", "/readyz", "/readyz/data_corruption", "/version", "/metrics", "/debug/vars", "/debug/pprof/cmdline",
		"/debug/requests", "/", "/v3", "/v3/", "/v3/nope", "/v3/kv/range", "/v3alpha/kv/range", "/members"} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"} {
			p.compare(t, client, ask{method: method, path: path})
		}
	}
	for _, path := range append([]string{"/metrics", "/version", "/debug/vars", "/v3/kv/range", "/nope"}, probePaths...) {
		p.compare(t, client, ask{method: http.MethodGet, path: path, onMetrics: true})
	}
	p.compare(t, client,
		ask{method: "GET", path: "/health", header: http.Header{"Origin": {"http://x"}}},
		ask{method: "OPTIONS", path: "/v3/kv/put", header: http.Header{"Origin": {"http://x"}, "Access-Control-Request-Method": {"POST"}}})
}

// If this fails, the pages with which a member is looked into are not there.
func TestDebugPagesAsEtcd(t *testing.T) {
	p := startPair(t, 1, "--log-level", "debug")
	p.compare(t, noRedirects(&http.Transport{DisableCompression: true}), gets("/debug/requests", "/debug/events", "/debug/pprof/cmdline", "/debug/vars")...)
}

// If this fails, a program that uses the JSON gateway finds another answer than
// etcd's.
func TestJSONAnswersAsEtcd(t *testing.T) {
	p := startPair(t, 1)
	client := noRedirects(&http.Transport{DisableCompression: true})
	p.compare(t, client, posts("/v3/kv/put", `{"key":"YQ==","value":"Yg=="}`, `{"key":"YQ==","lease":"55"}`, `{`, `[]`, `null`, `{"key":"!"}`, `{"key":5}`)...)
	p.compare(t, client, posts("/v3/kv/range", `{"key":"YQ=="}`, ``, `{"key":"YQ=="} more`, `{"limit":1.5}`, `{"revision":"100","key":"YQ=="}`, `{"sort_order":7,"key":"YQ=="}`,
		`{"sort_order":"NOPE","key":"YQ=="}`, `{"nope":7,"key":"YQ=="}`, `{"key":"YQ==","key":"Yg=="}`, `{"key":"YQ"}`, `{"serializable":"true","key":"YQ=="}`)...)
	p.compare(t, client, posts("/v3/kv/put", `{"key":"YQ==","value":"`+strings.Repeat("A", 2097152)+`"}`, `{"key":"YQ==","value":"`+strings.Repeat("A", 2900000)+`"}`)...)
	p.compare(t, client, posts("/v3/lease/grant", `{"TTL":100,"ID":7}`, `{"TTL":100,"ID":7}`)...)
	p.compare(t, client, posts("/v3/lease/keepalive", `{"ID":7}`, ``, "{\"ID\":7}\n{\"ID\":99}", `{"ID":7} more`, `{"ID":7}{"ID":"x"}`)...)
	p.compare(t, client, posts("/v3/election/campaign", `{"name":"ZQ==","lease":7,"value":"YQ=="}`)...)
	p.compare(t, client, posts("/v3/election/leader", `{"name":"ZQ=="}`, `{"name":"bm9uZQ=="}`)...)
	p.compare(t, client, posts("/v3/election/observe", `junk`)...)
	p.compare(t, client, posts("/v3/maintenance/snapshot", `junk`)...)
	p.compare(t, client, posts("/v3/lock/lock", `{"name":"ZA==","lease":77}`)...)
	for _, h := range []http.Header{
		{"Grpc-Timeout": {"1n"}}, {"Grpc-Timeout": {"10S"}}, {"Grpc-Timeout": {"junk"}}, {"Grpc-Metadata-X-Bin": {"AAAA"}}, {"Grpc-Metadata-X-Bin": {"!"}},
		{"Grpc-Metadata-Hasleader": {"true"}}, {"X-Http-Method-Override": {"GET"}},
		{"X-Http-Method-Override": {"GET"}, "Content-Type": {"application/x-www-form-urlencoded"}},
	} {
		p.compare(t, client, ask{method: "POST", path: "/v3/kv/range", body: `{"key":"YQ=="}`, header: h})
	}
	p.compare(t, client, ask{method: "POST", path: "/v3/lease/keepalive", body: "junk", status: 400, why: "etcd says nothing of a first message that is none"})
}

// If this fails, a probe does not see an alarm as etcd's shows it.
func TestProbesUnderAlarms(t *testing.T) {
	p := startPair(t, 1)
	client := noRedirects(&http.Transport{})
	for _, alarm := range []string{"NOSPACE", "CORRUPT"} {
		for _, c := range []*process.Cluster{p.etcd, p.kvorum} {
			p.do(t, client, c, ask{method: "POST", path: "/v3/maintenance/alarm", body: fmt.Sprintf(`{"action":"ACTIVATE","alarm":%q,"memberID":1}`, alarm)})
		}
		p.compare(t, client, gets(probePaths...)...)
		for _, c := range []*process.Cluster{p.etcd, p.kvorum} {
			p.do(t, client, c, ask{method: "POST", path: "/v3/maintenance/alarm", body: fmt.Sprintf(`{"action":"DEACTIVATE","alarm":%q,"memberID":1}`, alarm)})
		}
	}
	p.compare(t, client, gets(probePaths...)...)
}

// If this fails, a probe takes a member without a leader for a good one, or for
// a dead one.
func TestProbesWithoutLeader(t *testing.T) {
	p := startPair(t, 3)
	client := noRedirects(&http.Transport{})
	for _, c := range []*process.Cluster{p.etcd, p.kvorum} {
		c.Members[1].Kill()
		c.Members[2].Kill()
		deadline := time.Now().Add(waitMax)
		for p.do(t, client, c, ask{method: "GET", path: "/health"}).status == http.StatusOK && time.Now().Before(deadline) {
		}
	}
	for _, service := range []string{"", "etcdserverpb.KV"} {
		if want, got := grpcHealth(t, p.etcd, service), grpcHealth(t, p.kvorum, service); got != want {
			t.Errorf("health of %q: %s, etcd says %s", service, got, want)
		}
	}
	p.compare(t, client, gets("/health", "/health?serializable=true", "/livez?verbose", "/readyz", "/readyz/serializable_read",
		"/readyz?exclude=linearizable_read&verbose")...)

	p.compare(t, client, ask{method: "POST", path: "/v3/kv/range", body: `{"key":"YQ=="}`, header: http.Header{"Grpc-Metadata-Hasleader": {"true"}}},
		ask{method: "POST", path: "/v3/watch", body: `{"create_request":{"key":"YQ=="}}`, header: http.Header{"Grpc-Metadata-Hasleader": {"true"}}})
}

// grpcHealth is what grpc.health.v1 says of a service.
func grpcHealth(t *testing.T, c *process.Cluster, service string) string {
	t.Helper()
	conn, err := grpc.NewClient(c.Members[0].Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), waitMax)
	defer cancel()
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	return fmt.Sprint(answer.GetStatus(), err)
}

// If this fails, a member is reachable by another way than its flags say.
func TestHostsSocketsAndProtocols(t *testing.T) {
	ports, err := process.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for i, binary := range []string{etcdBinary(t), kvorumBinary(t)} {
		separate, socket := fmt.Sprintf("http://127.0.0.1:%d", ports[i]), filepath.Join(dir, fmt.Sprint(i))
		c := startCluster(t, process.Options{Binary: binary, Size: 1, Args: []string{
			"--listen-client-http-urls", separate + ",unix://" + socket, "--host-whitelist", "known.example,127.0.0.1,localhost,x",
		}})
		h2c := &http.Transport{Protocols: new(http.Protocols)}
		h2c.Protocols.SetUnencryptedHTTP2(true)
		overSocket := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}
		for _, w := range []struct {
			what, url, host string
			transport       *http.Transport
			status          int
			onlyKvorum      bool
		}{
			{"HTTP has moved away", c.Members[0].ClientURL, "", &http.Transport{}, http.StatusNotFound, true},
			{"to its own URL", separate, "", &http.Transport{}, http.StatusOK, false},
			{"HTTP/2 there", separate, "", h2c, http.StatusOK, true},
			{"a socket", "http://x", "", overSocket, http.StatusOK, false},
			{"a known host", separate, "known.example", &http.Transport{}, http.StatusOK, false},
			{"an unknown host", separate, "unknown.example", &http.Transport{}, http.StatusMisdirectedRequest, false},
		} {
			if w.onlyKvorum && i == 0 {
				continue // etcd speaks only gRPC on the one, only HTTP/1 on the other
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/health", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = w.host
			answer, err := (&http.Client{Transport: w.transport, Timeout: waitMax}).Do(r)
			if err != nil {
				t.Errorf("%s: %s: %v", filepath.Base(binary), w.what, err)
				continue
			}
			_ = answer.Body.Close()
			if answer.StatusCode != w.status {
				t.Errorf("%s: %s: %s, want %d", filepath.Base(binary), w.what, answer.Status, w.status)
			}
		}
	}
}
