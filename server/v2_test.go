package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// v2 sends one request with a form to a member.
func (m *testMember) v2(method, path string, form url.Values) (status int, header http.Header, body string) {
	m.t.Helper()
	r, err := http.NewRequestWithContext(m.ctx, method, "http://"+m.clientListeners[0].Addr().String()+path, strings.NewReader(form.Encode()))
	if err != nil {
		m.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		m.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, string(text)
}

// set writes one v2 key.
func (m *testMember) v2set(path, value string) {
	m.t.Helper()
	if status, _, body := m.v2(http.MethodPut, "/v2/keys"+path, url.Values{"value": {value}}); status >= 300 {
		m.t.Fatalf("set %s: %d %s", path, status, body)
	}
}

// awaitServing waits until the member serves clients.
func (m *testMember) awaitServing() {
	m.t.Helper()
	if _, err := pb.NewKVClient(m.conn).Range(m.ctx, &pb.RangeRequest{Key: []byte("a")}); err != nil {
		m.t.Fatal(err)
	}
}

// If this fails, a v3 client that has never heard of v2 can destroy the v2
// tree, or sees keys of an API that nobody has used.
func TestV3KeepsOffV2Keys(t *testing.T) {
	m := startMember(t, nil)
	kv := pb.NewKVClient(m.conn)
	all := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	if r, err := kv.Range(m.ctx, all); err != nil || r.Count != 0 {
		t.Fatalf("an unused store has %v (%v)", r, err)
	}
	key, prefix := []byte("\x00v2/a"), []byte("\x00v2")
	put := &pb.PutRequest{Key: key, Value: []byte("x")}
	opPut := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}}
	nested := &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Failure: []*pb.RequestOp{opPut}}}}
	everything := &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	if _, err := kv.DeleteRange(m.ctx, everything); err != nil {
		t.Errorf("deleting all keys without any of v2: %v", err)
	}
	m.v2set("/a", "1")
	for name, call := range map[string]func() error{
		"put":               func() error { _, err := kv.Put(m.ctx, put); return err },
		"txn":               func() error { _, err := kv.Txn(m.ctx, &pb.TxnRequest{Success: []*pb.RequestOp{opPut}}); return err },
		"txn in a txn":      func() error { _, err := kv.Txn(m.ctx, &pb.TxnRequest{Success: []*pb.RequestOp{nested}}); return err },
		"delete":            func() error { _, err := kv.DeleteRange(m.ctx, &pb.DeleteRangeRequest{Key: key}); return err },
		"delete everything": func() error { _, err := kv.DeleteRange(m.ctx, everything); return err },
		"delete below": func() error {
			_, err := kv.DeleteRange(m.ctx, &pb.DeleteRangeRequest{Key: prefix, RangeEnd: []byte("\x00v2b")})
			return err
		},
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), "belong to the v2 API") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := kv.DeleteRange(m.ctx, &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte{0}}); err != nil {
		t.Errorf("deleting from a on: %v", err)
	}
	if status, _, body := m.v2(http.MethodGet, "/v2/keys/a", nil); status != http.StatusOK {
		t.Errorf("the v2 key after all: %d %s", status, body)
	}
}

// If this fails, an operator cannot mend v2 keys by hand.
func TestV2PrefixWritesByFlag(t *testing.T) {
	r := must[FlagResult](t)(ParseFlags([]string{"--unsafe-v2-prefix-writes", "--enable-v2=false"}, nil, io.Discard))
	if !r.Config.V2PrefixWrites || r.Config.EnableV2 || !DefaultConfig().EnableV2 || DefaultConfig().V2PrefixWrites {
		t.Errorf("flags give %+v", r.Config)
	}
	m := startMember(t, func(c *Config) { c.V2PrefixWrites = true })
	kv := pb.NewKVClient(m.conn)
	if _, err := kv.Put(m.ctx, &pb.PutRequest{Key: []byte("\x00v2/a"), Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if status, _, body := m.v2(http.MethodGet, "/v2/keys/a", nil); status != http.StatusInternalServerError || !strings.Contains(body, "damaged") {
		t.Errorf("reading what v3 has written: %d %s", status, body)
	}
	if _, err := kv.DeleteRange(m.ctx, &pb.DeleteRangeRequest{Key: []byte("\x00v2/a")}); err != nil {
		t.Fatal(err)
	}
	m.v2set("/a", "1")
}

// If this fails, an operator cannot turn the v2 API off, or turning it off
// takes more than the API away.
func TestV2CanBeTurnedOff(t *testing.T) {
	m := startMember(t, func(c *Config) { c.EnableV2 = false })
	m.awaitServing()
	for _, path := range []string{"/v2/keys", "/v2/keys/a", "/v2/members", "/v2/stats/self", "/v2/auth/enable", "/v2/machines"} {
		if status, _, body := m.v2(http.MethodGet, path, nil); status != http.StatusNotFound || body != "404 page not found\n" {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, _, _ := m.v2(http.MethodGet, "/version", nil); status != http.StatusOK {
		t.Errorf("/version: %d", status)
	}
}

// If this fails, pages of foreign sites may use the v2 API where --cors forbids
// it, or a browser can be made to use it under a foreign name.
func TestV2RespectsAccessRules(t *testing.T) {
	m := startMember(t, func(c *Config) { c.CORS, c.HostWhitelist = []string{"http://a.example"}, []string{"b.example"} })
	m.awaitServing()
	ask := func(host, origin string) *http.Response {
		t.Helper()
		r := must[*http.Request](t)(http.NewRequestWithContext(m.ctx, http.MethodGet, "http://"+m.clientListeners[0].Addr().String()+"/v2/keys", nil))
		r.Host = host
		r.Header.Set("Origin", origin)
		answer := must[*http.Response](t)(http.DefaultClient.Do(r))
		answer.Body.Close()
		return answer
	}
	if r := ask("evil.example", ""); r.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("foreign host name: %d", r.StatusCode)
	}
	if r := ask("b.example", "http://evil.example"); r.StatusCode != http.StatusOK || r.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("foreign origin: %d, %q", r.StatusCode, r.Header)
	}
	if r := ask("b.example", "http://a.example"); r.Header.Get("Access-Control-Allow-Origin") != "http://a.example" {
		t.Errorf("own origin: %q", r.Header)
	}
}

// If this fails, a client that waits from an old index is told of history with
// holes instead of being told to start again, or is refused what is still there.
func TestV2WaitFromOldIndex(t *testing.T) {
	m := startMember(t, nil)
	m.awaitServing()
	for i := range 1200 { // etcd keeps 1,000 events
		m.v2set("/a", fmt.Sprint(i))
	}
	if status, _, body := m.v2(http.MethodGet, "/v2/keys/a?wait=true&waitIndex=3", nil); status != http.StatusOK ||
		!strings.Contains(body, `"value":"1","modifiedIndex":3`) || !strings.Contains(body, `"prevNode":{"key":"/a","value":"0","modifiedIndex":2`) {
		t.Errorf("from index 3: %d %s", status, body)
	}
	if _, err := pb.NewKVClient(m.conn).Compact(m.ctx, &pb.CompactionRequest{Revision: 500, Physical: true}); err != nil {
		t.Fatal(err)
	}
	status, header, body := m.v2(http.MethodGet, "/v2/keys/a?wait=true&waitIndex=500", nil)
	want := `{"errorCode":401,"message":"The event in requested index is outdated and cleared","cause":"the requested history has been cleared [501/500]","index":1201}` + "\n"
	if status != http.StatusBadRequest || body != want || header.Get("X-Etcd-Index") != "1201" {
		t.Errorf("from index 500: %d %s %s", status, header.Get("X-Etcd-Index"), body)
	}
	status, _, body = m.v2(http.MethodGet, "/v2/keys/a?wait=true&waitIndex=501", nil)
	if status != http.StatusOK || !strings.Contains(body, `"modifiedIndex":501`) || !strings.Contains(body, `"modifiedIndex":500`) {
		t.Errorf("from index 501: %d %s", status, body)
	}
}

// If this fails, v2 clients are kept waiting when the member stops, and hold it
// up.
func TestV2WaitEndsWithTheMember(t *testing.T) {
	m := startMember(t, nil)
	m.awaitServing()
	r := must[*http.Request](t)(http.NewRequestWithContext(m.ctx, http.MethodGet, "http://"+m.clientListeners[0].Addr().String()+"/v2/keys/a?wait=true", nil))
	answer := must[*http.Response](t)(http.DefaultClient.Do(r))
	defer answer.Body.Close()
	m.stop()
	if body, err := io.ReadAll(answer.Body); err == nil && len(body) > 0 {
		t.Errorf("the wait ended with %q", body)
	}
}

// If this fails, v2 writes fill the disk past the quota.
func TestV2WritesCountForTheQuota(t *testing.T) {
	m := startMember(t, func(c *Config) { c.QuotaBackendBytes = 1 })
	m.awaitServing()
	status, _, body := m.v2(http.MethodPut, "/v2/keys/a", url.Values{"value": {"1"}})
	if status != http.StatusInternalServerError || !strings.Contains(body, `"errorCode":300`) || !strings.Contains(body, "database space exceeded") {
		t.Errorf("%d %s", status, body)
	}
	if status, _, body := m.v2(http.MethodDelete, "/v2/keys/a", nil); status != http.StatusNotFound {
		t.Errorf("a delete, which frees space: %d %s", status, body)
	}
}

// BenchmarkV2Set and the ones after it are one client that waits for each
// answer; beside them BenchmarkV3Put and BenchmarkV3Range do the same over gRPC.
func BenchmarkV2Set(b *testing.B) {
	benchmarkV2(b, func(m *testMember, c *http.Client, base string) error {
		r, err := http.NewRequestWithContext(m.ctx, http.MethodPut, base+"/v2/keys/bench/key", strings.NewReader("value=0123456789abcdef"))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return discard(c, r)
	})
}

func BenchmarkV2Get(b *testing.B) {
	benchmarkV2(b, func(m *testMember, c *http.Client, base string) error {
		r, err := http.NewRequestWithContext(m.ctx, http.MethodGet, base+"/v2/keys/bench/key", nil)
		if err != nil {
			return err
		}
		return discard(c, r)
	})
}

// benchmarkV2 runs requests of many clients at once.
func benchmarkV2(b *testing.B, one func(*testMember, *http.Client, string) error) {
	m := startBenchMember(b)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024}}
	base := "http://" + m.clientListeners[0].Addr().String()
	runClients(b, func() error { return one(m, client, base) })
}

// runClients also reports the processor time of a request, client and server
// together: on a busy machine that tells more than how long it took.
func runClients(b *testing.B, one func() error) {
	b.SetParallelism(16)
	b.ReportAllocs()
	before := cpuTime(b)
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if err := one(); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func discard(c *http.Client, r *http.Request) error {
	answer, err := c.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		return fmt.Errorf("answer %s", answer.Status)
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

// startBenchMember has the keys that the benchmarks read.
func startBenchMember(b *testing.B) *testMember {
	b.Helper()
	m := startMember(b, nil)
	kv := pb.NewKVClient(m.conn)
	if _, err := kv.Put(m.ctx, &pb.PutRequest{Key: []byte("bench/key"), Value: []byte("0123456789abcdef")}); err != nil {
		b.Fatal(err)
	}
	m.v2set("/bench/key", "0123456789abcdef")
	return m
}

func benchmarkV3(b *testing.B, one func(context.Context, pb.KVClient) error) {
	m := startBenchMember(b)
	kv := pb.NewKVClient(m.conn)
	runClients(b, func() error { return one(m.ctx, kv) })
}

func BenchmarkV3Put(b *testing.B) {
	benchmarkV3(b, func(ctx context.Context, kv pb.KVClient) error {
		_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("bench/key"), Value: []byte("0123456789abcdef")})
		return err
	})
}

func BenchmarkV3Range(b *testing.B) {
	benchmarkV3(b, func(ctx context.Context, kv pb.KVClient) error {
		_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("bench/key"), Serializable: true})
		return err
	})
}

// If this fails, v2 keys or their TTLs are lost when a member starts again.
func TestV2SurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	sameDir := func(c *Config) { c.DataDir = dir }
	m := startMember(t, sameDir)
	m.awaitServing()
	m.v2set("/d/a", "1")
	if status, _, body := m.v2(http.MethodPut, "/v2/keys/d/t", url.Values{"value": {"1"}, "ttl": {"1"}}); status != http.StatusCreated {
		t.Fatalf("%d %s", status, body)
	}
	_, _, before := m.v2(http.MethodGet, "/v2/keys/d/a", nil)
	m.stop()

	m = startMember(t, sameDir)
	m.awaitServing()
	if _, _, after := m.v2(http.MethodGet, "/v2/keys/d/a", nil); after != before {
		t.Errorf("was %snow %s", before, after)
	}
	status, _, body := m.v2(http.MethodGet, "/v2/keys/d/t?wait=true&waitIndex=4", nil)
	if gone, _, _ := m.v2(http.MethodGet, "/v2/keys/d/t", nil); gone != http.StatusNotFound || status != http.StatusOK || !strings.Contains(body, `"action":"expire"`) {
		t.Errorf("the TTL: %d %s, then %d", status, body, gone)
	}
}
