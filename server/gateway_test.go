package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

func (m *testMember) url(path string) string {
	return "http://" + m.clientListeners[0].Addr().String() + path
}

// request makes one HTTP request; it waits until the member serves.
func (m *testMember) request(method, path string, body io.Reader, header http.Header) *http.Response {
	m.t.Helper()
	r, err := http.NewRequestWithContext(m.ctx, method, m.url(path), body)
	if err != nil {
		m.t.Fatal(err)
	}
	r.Header = header
	r.Host = header.Get("Host")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { answer.Body.Close() })
	return answer
}

func (m *testMember) post(path, body string) *http.Response {
	m.t.Helper()
	return m.request(http.MethodPost, path, strings.NewReader(body), http.Header{})
}

func text(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// If this fails, programs that use etcd over JSON get other answers than etcd's.
func TestGatewayScript(t *testing.T) {
	m := startMember(t, nil)
	token := ""
	datadriven.RunTest(t, "testdata/gateway", func(t *testing.T, d *datadriven.TestData) string {
		path, method, lines := "", http.MethodPost, 0
		d.ScanArgs(t, "path", &path)
		d.MaybeScanArgs(t, "method", &method)
		d.MaybeScanArgs(t, "lines", &lines)
		header := http.Header{}
		if d.HasArg("bearer") {
			header.Set("Authorization", "Bearer "+token)
		}
		for _, arg := range d.CmdArgs {
			if name, ok := strings.CutPrefix(arg.Key, "header-"); ok {
				header.Set(name, strings.ReplaceAll(arg.Vals[0], "TOKEN", token))
			}
		}
		answer := m.request(method, path, strings.NewReader(d.Input), header)
		body := ""
		if lines > 0 {
			body = readLines(t, bufio.NewReader(answer.Body), lines)
		} else {
			body = text(t, answer)
		}
		if found := regexp.MustCompile(`"token":"([^"]+)"`).FindStringSubmatch(body); found != nil {
			token = found[1]
		}
		return fmt.Sprintf("%d %s\n%s\n", answer.StatusCode, answer.Header.Get("Content-Type"), steady(strings.TrimSuffix(body, "\n")))
	})
}

func readLines(t *testing.T, r *bufio.Reader, n int) string {
	t.Helper()
	var all strings.Builder
	for range n {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("after %q: %v", all.String(), err)
		}
		all.WriteString(line)
	}
	return all.String()
}

// steady replaces what differs from run to run.
func steady(body string) string {
	body = regexp.MustCompile(`"cluster_id":"\d+","member_id":"\d+"`).ReplaceAllString(body, `"ids"`)
	body = regexp.MustCompile(`"raft_term":"\d+"`).ReplaceAllString(body, `"term"`)
	return regexp.MustCompile(`"token":"[^"]+"`).ReplaceAllString(body, `"token":"TOKEN"`)
}

// If this fails, a watcher over JSON cannot add watchers while events come, or
// its events come late.
func TestGatewayWatchIsTwoWay(t *testing.T) {
	m := startMember(t, nil)
	body, say := io.Pipe()
	defer say.Close()
	go fmt.Fprintln(say, `{"create_request":{"key":"YQ==","watch_id":7}}`)
	answer := m.request(http.MethodPost, "/v3/watch", body, http.Header{})
	lines := bufio.NewReader(answer.Body)
	expect := func(want string) {
		t.Helper()
		if got := readLines(t, lines, 1); !strings.Contains(got, want) {
			t.Errorf("got %s, want %s in it", got, want)
		}
	}
	expect(`"watch_id":"7","created":true`)
	fmt.Fprintln(say, `{"createRequest":{"key":"Yg==","watchId":"8","filters":["NODELETE"]}}`)
	expect(`"watch_id":"8","created":true`)
	text(t, m.post("/v3/kv/put", `{"key":"Yg==","value":"MQ=="}`))
	expect(`"watch_id":"8","events":[{"kv":{"key":"Yg==","create_revision":"2","mod_revision":"2","version":"1","value":"MQ=="}}]`)
	fmt.Fprintln(say, `{"cancel_request":{"watch_id":8}}`)
	expect(`"canceled":true`)
	fmt.Fprintln(say, `nonsense`)
	text(t, m.post("/v3/kv/put", `{"key":"YQ==","value":"MQ=="}`))
	expect(`"watch_id":"7","events":[{"kv":{"key":"YQ=="`) // as with etcd, what was asked before goes on
}

// If this fails, a client that leaves its request open is never told that the
// stream has failed, or holds a goroutine for good.
func TestGatewayStreamEndsWhileBodyIsOpen(t *testing.T) {
	m := startMember(t, nil)
	body, say := io.Pipe()
	defer say.Close()
	go fmt.Fprintln(say, `{"name":""}`)
	answer := m.request(http.MethodPost, "/v3/maintenance/snapshot", body, http.Header{})
	if got := text(t, answer); answer.StatusCode != http.StatusOK || !strings.Contains(got, `"blob":`) {
		t.Errorf("%s: %.100s", answer.Status, got)
	}
}

// If this fails, a member with watchers over JSON does not stop.
func TestMemberStopsUnderGatewayStreams(t *testing.T) {
	m := startMember(t, nil)
	answer := m.post("/v3/watch", `{"create_request":{"key":"YQ=="}}`)
	lines := bufio.NewReader(answer.Body)
	readLines(t, lines, 1)
	m.stop()
	if rest, _ := io.ReadAll(lines); strings.Contains(string(rest), "result") {
		t.Errorf("after the end: %s", rest)
	}
}

// If this fails, a client that went away while it waited for a lock gets it, and
// nobody else does.
func TestGatewayClientGoesAway(t *testing.T) {
	m := startMember(t, nil)
	text(t, m.post("/v3/lease/grant", `{"ID":1,"TTL":600}`))
	text(t, m.post("/v3/lease/grant", `{"ID":2,"TTL":600}`))
	text(t, m.post("/v3/lock/lock", `{"name":"bQ==","lease":1}`))
	queued := bufio.NewReader(m.post("/v3/watch", `{"create_request":{"key":"bS8y"}}`).Body)
	readLines(t, queued, 1)
	ctx, leave := context.WithCancel(m.ctx)
	// A body of unknown length: its end comes after the message.
	body := io.MultiReader(strings.NewReader(`{"name":"bQ==","lease":2}`))
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, m.url("/v3/lock/lock"), body)
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan error)
	go func() {
		answer, err := http.DefaultClient.Do(r)
		if err == nil {
			answer.Body.Close()
		}
		gone <- err
	}()
	if line := readLines(t, queued, 1); !strings.Contains(line, `"kv":{"key":"bS8y"`) {
		t.Errorf("not in the queue: %s", line)
	}
	leave()
	if err := <-gone; err == nil {
		t.Error("got the lock")
	}
	if line := readLines(t, queued, 1); !strings.Contains(line, `"type":"DELETE"`) {
		t.Errorf("still in the queue: %s", line)
	}
}

// If this fails, answers over JSON name another member or cluster than over gRPC.
func TestGatewayHeaderIsTheMembers(t *testing.T) {
	m := startMember(t, nil)
	var got struct {
		Header struct {
			Cluster uint64 `json:"cluster_id,string"`
			Member  uint64 `json:"member_id,string"`
		}
	}
	answer := m.post("/v3/kv/range", `{"key":"YQ=="}`)
	if err := json.Unmarshal([]byte(text(t, answer)), &got); err != nil {
		t.Fatal(err)
	}
	want := must[*pb.RangeResponse](t)(pb.NewKVClient(m.conn).Range(m.ctx, &pb.RangeRequest{Key: []byte("a")})).Header
	if got.Header.Cluster != want.ClusterId || got.Header.Member != want.MemberId {
		t.Errorf("got %+v, want %v", got.Header, want)
	}
	if name := answer.Header.Get("Grpc-Metadata-Content-Type"); name != "application/grpc" {
		t.Errorf("Grpc-Metadata-Content-Type: %q", name)
	}
}

// If this fails, one request can fill the memory of a member.
func TestGatewayRefusesEndlessMessage(t *testing.T) {
	m := startMember(t, func(c *Config) { c.MaxRequestBytes = 1000 })
	endless := io.MultiReader(strings.NewReader(`{"key":"`), io.LimitReader(letters{}, 8<<20))
	answer := m.request(http.MethodPost, "/v3/kv/put", endless, http.Header{})
	if body := text(t, answer); answer.StatusCode != http.StatusTooManyRequests || !strings.Contains(body, `"code":8`) {
		t.Errorf("%s: %s", answer.Status, body)
	}
}

type letters struct{}

func (letters) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte("A"), len(p))), nil }

// If this fails, the operator cannot turn the gateway off.
func TestGatewayOff(t *testing.T) {
	m := startMember(t, func(c *Config) { c.EnableGateway = false })
	answer := m.post("/v3/kv/range", `{"key":"YQ=="}`)
	if body := text(t, answer); answer.StatusCode != http.StatusNotFound || body != "404 page not found\n" {
		t.Errorf("%s: %q", answer.Status, body)
	}
}

// If this fails, lists of hosts and origins are taken for one name, or a gateway
// that was turned off is served.
func TestGatewayFlags(t *testing.T) {
	r, err := ParseFlags([]string{"--enable-grpc-gateway=false", "--cors", "http://a.example:1, http://b.example:2"},
		[]string{"ETCD_HOST_WHITELIST=a,b"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	c := r.Config
	if c.EnableGateway || !slices.Equal(c.CORS, []string{"http://a.example:1", "http://b.example:2"}) || !slices.Equal(c.HostWhitelist, []string{"a", "b"}) {
		t.Errorf("gateway %t, origins %q, hosts %q", c.EnableGateway, c.CORS, c.HostWhitelist)
	}
	if !DefaultConfig().EnableGateway {
		t.Error("the gateway is off")
	}
}

// If this fails, any web page can reach a member on localhost, or pages that
// were allowed cannot.
func TestHostsAndOrigins(t *testing.T) {
	m := startMember(t, func(c *Config) {
		c.HostWhitelist, c.CORS = []string{"db.example", "::1"}, []string{"http://page.example:8080"}
	})
	for _, c := range []struct {
		host, origin string
		status       int
		allowed      string // Access-Control-Allow-Origin
	}{
		{"db.example", "", http.StatusOK, ""},
		{"db.example:2379", "http://page.example:8080", http.StatusOK, "http://page.example:8080"},
		{"[::1]:2379", "http://other.example", http.StatusOK, ""},
		{"[::1]", "*", http.StatusOK, ""},
		{"evil.example:2379", "http://page.example:8080", http.StatusMisdirectedRequest, ""},
		{"", "", http.StatusMisdirectedRequest, ""}, // 127.0.0.1 is not in the list
	} {
		answer := m.request(http.MethodGet, "/version", nil, http.Header{"Host": {c.host}, "Origin": {c.origin}})
		body := text(t, answer)
		if answer.StatusCode != c.status || answer.Header.Get("Access-Control-Allow-Origin") != c.allowed {
			t.Errorf("%+v: %s, %v", c, answer.Status, answer.Header)
		}
		if c.status != http.StatusOK && !strings.Contains(body, "--host-whitelist") {
			t.Errorf("%+v: %q does not name the flag", c, body)
		}
	}
}

// If this fails, a client believes to be the user of its certificate while the
// gateway takes it for nobody; or HTTPS clients cannot use the gateway at all.
func TestGatewayUnderTLS(t *testing.T) {
	c := newCerts(t)
	m := startTLSMember(t, func(cfg *Config) {
		cfg.ClientTLS, cfg.BcryptCost, cfg.HostWhitelist = c.mutual(), 4, []string{"nobody.example"}
	})
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	root := newClient(t, c.dialer("root", c.ca, c.ca), m.testEndpoint())
	for _, http2 := range []bool{false, true} {
		if err := putOver(ctx, root, "a"); err != nil {
			t.Fatal(err)
		}
		status, body := postTLS(ctx, t, c, m.testEndpoint(), http2)
		if status != http.StatusOK || !strings.Contains(body, `"count":"1"`) {
			t.Errorf("HTTP/2 %t: %d %s", http2, status, body)
		}
	}
	enableFor(ctx, t, root, "alice", "a")
	want := "CommonName of client sending a request against gateway will be ignored and not used as expected\n"
	if status, body := postTLS(ctx, t, c, m.testEndpoint(), true); status != http.StatusBadRequest || body != want {
		t.Errorf("with auth: %d %q", status, body)
	}
}

func postTLS(ctx context.Context, t *testing.T, c *certs, endpoint string, http2 bool) (status int, body string) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: c.dialer("root", c.ca, c.ca), ForceAttemptHTTP2: http2}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint+"/v3/kv/range", strings.NewReader(`{"key":"YQ=="}`))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if (answer.ProtoMajor == 2) != http2 {
		t.Errorf("spoke %s", answer.Proto)
	}
	return answer.StatusCode, text(t, answer)
}
