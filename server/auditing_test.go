package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// auditLine is one line of the audit log.
type auditLine struct {
	Time, User, Remote, CN, Op, Detail, Key, Code, Error string
	RangeEnd                                             string `json:"range_end"`
	Lease, Revision                                      int64
	Ops                                                  []struct{ Op, Key string }
	DurationUS                                           *int64 `json:"duration_us"`
	BytesIn                                              int    `json:"bytes_in"`
	BytesOut                                             int    `json:"bytes_out"`
	MessagesIn                                           int    `json:"messages_in"`
	WatchID                                              *int64 `json:"watch_id"`
}

func auditLines(t *testing.T, path string) (lines []auditLine, text string) {
	t.Helper()
	text = string(must[[]byte](t)(os.ReadFile(path)))
	text = text[:strings.LastIndexByte(text, '\n')+1] // the rest is being written
	for line := range strings.Lines(text) {
		var l auditLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		lines = append(lines, l)
	}
	return lines, text
}

// useAudited makes requests of all kinds with auth on, and stops the member.
func useAudited(t *testing.T, m *testMember) {
	t.Helper()
	auth := pb.NewAuthClient(m.conn)
	must[*pb.AuthUserAddResponse](t)(auth.UserAdd(m.ctx, &pb.AuthUserAddRequest{Name: "root", Password: "s3cr3t"}))
	must[*pb.AuthRoleAddResponse](t)(auth.RoleAdd(m.ctx, &pb.AuthRoleAddRequest{Name: "root"}))
	must[*pb.AuthUserGrantRoleResponse](t)(auth.UserGrantRole(m.ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}))
	must[*pb.AuthUserAddResponse](t)(auth.UserAdd(m.ctx, &pb.AuthUserAddRequest{Name: "eve", Password: "s3cr3t"}))
	must[*pb.AuthEnableResponse](t)(auth.AuthEnable(m.ctx, &pb.AuthEnableRequest{}))
	root, eve := m.as("root", "s3cr3t"), m.as("eve", "s3cr3t")
	kv := pb.NewKVClient(m.conn)
	must[*pb.PutResponse](t)(kv.Put(root, &pb.PutRequest{Key: []byte("k"), Value: []byte("s3cr3t")}))
	must[*pb.RangeResponse](t)(kv.Range(root, &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z")}))
	must[*pb.TxnResponse](t)(kv.Txn(root, &pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("t"), Value: []byte("s3cr3t")}}},
	}}))
	if _, err := kv.Put(eve, &pb.PutRequest{Key: []byte("forbidden"), Value: []byte("s3cr3t")}); err == nil {
		t.Fatal("a put without permission was taken")
	}
	must[*pb.LeaseGrantResponse](t)(pb.NewLeaseClient(m.conn).LeaseGrant(root, &pb.LeaseGrantRequest{ID: 77, TTL: 100}))
	watch := must[pb.Watch_WatchClient](t)(pb.NewWatchClient(m.conn).Watch(root))
	for _, create := range []*pb.WatchCreateRequest{{Key: []byte("w")}, {Key: []byte("z"), RangeEnd: []byte("a")}} { // the second range is empty
		if err := watch.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
			t.Fatal(err)
		}
		must[*pb.WatchResponse](t)(watch.Recv())
	}
	r := must[*http.Request](t)(http.NewRequestWithContext(m.ctx, http.MethodPost, "http://"+m.clientListeners[0].Addr().String()+"/v3/kv/range", strings.NewReader(`{"key":"aHR0cA=="}`)))
	r.Header.Set("Grpc-Metadata-Kvorum-Remote", "6.6.6.6:6") // must not be believed
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	m.stop()
}

// If this fails, nobody can tell afterwards who did what, or reads secrets where
// that is written.
func TestAuditLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	m := startMember(t, func(c *Config) { c.Audit.To = path })
	useAudited(t, m)
	lines, text := auditLines(t, path)
	if strings.Contains(text, "s3cr3t") {
		t.Errorf("a secret is in the audit log:\n%s", text)
	}
	has := func(what string, match func(l auditLine) bool) {
		t.Helper()
		if !slices.ContainsFunc(lines, match) {
			t.Errorf("no line of %s in\n%s", what, text)
		}
	}
	local := func(l auditLine) bool {
		return strings.HasPrefix(l.Remote, "127.0.0.1:") && l.Time != "" && l.DurationUS != nil && l.BytesIn > 0
	}
	has("the put", func(l auditLine) bool {
		return l.Op == "KV/Put" && l.User == "root" && l.Key == "k" && l.Code == "OK" && l.Revision == 2 && l.BytesOut > 0 && local(l)
	})
	has("the range", func(l auditLine) bool {
		return l.Op == "KV/Range" && l.User == "root" && l.Key == "a" && l.RangeEnd == "z" && l.Revision == 2 && local(l)
	})
	has("the transaction", func(l auditLine) bool {
		return l.Op == "KV/Txn" && len(l.Ops) == 1 && l.Ops[0].Op == "then put" && l.Ops[0].Key == "t" && l.Revision == 3
	})
	has("the refused put", func(l auditLine) bool {
		return l.Op == "KV/Put" && l.User == "eve" && l.Key == "forbidden" && l.Code == "PermissionDenied" && strings.Contains(l.Error, "permission denied") && local(l)
	})
	has("the login", func(l auditLine) bool {
		return l.Op == "Auth/Authenticate" && l.Detail == `name:"eve" password:<hidden>` && l.Code == "OK"
	})
	has("the lease", func(l auditLine) bool { return l.Op == "Lease/LeaseGrant" && l.Lease == 77 && l.User == "root" })
	has("the watcher", func(l auditLine) bool {
		return l.Op == "Watch/Create" && l.User == "root" && l.Key == "w" && l.Code == "OK" && l.WatchID != nil && local(l)
	})
	has("the refused watcher", func(l auditLine) bool {
		return l.Op == "Watch/Create" && l.Key == "z" && l.Code == "Canceled" && l.Error != ""
	})
	has("the watch stream", func(l auditLine) bool { return l.Op == "Watch/Watch" && l.MessagesIn == 2 && l.Code != "OK" })
	has("the range over HTTP", func(l auditLine) bool {
		return l.Op == "KV/Range" && l.Key == "http" && l.Code == "InvalidArgument" && local(l)
	})
	if info := must[os.FileInfo](t)(os.Stat(path)); info.Mode().Perm() != 0o600 {
		t.Errorf("the audit log has the mode %v", info.Mode())
	}
}

// If this fails, an audit log of changes is full of reads, or lacks what was
// refused.
func TestAuditLogOfWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	m := startMember(t, func(c *Config) { c.Audit.To, c.Audit.Level = path, AuditWrite })
	useAudited(t, m)
	lines, _ := auditLines(t, path)
	var ops []string
	for _, l := range lines {
		ops = append(ops, l.Op+" "+l.Code)
	}
	want := []string{
		"Auth/UserAdd OK", "Auth/RoleAdd OK", "Auth/UserGrantRole OK", "Auth/UserAdd OK", "Auth/AuthEnable OK", "Auth/Authenticate OK", "Auth/Authenticate OK",
		"KV/Put OK", "KV/Txn OK", "KV/Put PermissionDenied", "Lease/LeaseGrant OK", "Watch/Create Canceled",
	}
	if !slices.Equal(ops, want) {
		t.Errorf("%q, want %q", ops, want)
	}
}

// If this fails, an audit log that cannot be as asked is found out when it is
// needed.
func TestAuditFlags(t *testing.T) {
	for text, want := range map[string]string{
		"--audit-level=all":                                  "must be one of",
		"--audit-when-full=x":                                "must be one of",
		"--audit-rotation-config-json={":                     "needs a file",
		"--audit-log=stdout --audit-rotation-config-json={}": "needs a file",
		"--audit-log=a --audit-rotation-config-json={":       "improperly formatted",
	} {
		if _, err := ParseFlags(strings.Fields(text), nil, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	r, err := ParseFlags(strings.Fields(`--audit-log=a --audit-level=write --audit-when-full=drop --audit-rotation-config-json={"maxsize":1}`), nil, io.Discard)
	if want := (Audit{"a", AuditWrite, AuditDrop, `{"maxsize":1}`}); err != nil || r.Config.Audit != want {
		t.Errorf("%+v, %v; want %+v", r.Config.Audit, err, want)
	}
	cfg := DefaultConfig()
	cfg.DataDir, cfg.Audit.To = t.TempDir(), filepath.Join(t.TempDir(), "none", "audit")
	cfg.ListenPeerURLs, cfg.ListenClientURLs = mustURLs("http://127.0.0.1:0"), mustURLs("http://127.0.0.1:0")
	if _, err := New(t.Context(), cfg, slog.New(slog.DiscardHandler)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an audit log in a folder that does not exist: %v", err)
	}
}

// If this fails, the audit log does not say by whose certificate someone came in.
func TestAuditLogNamesCertificates(t *testing.T) {
	path, c := filepath.Join(t.TempDir(), "audit"), newCerts(t)
	m := startTLSMember(t, func(cfg *Config) { cfg.ClientTLS, cfg.BcryptCost, cfg.Audit.To = c.mutual(), 4, path })
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	root := newClient(t, c.dialer("root", c.ca, c.ca), m.testEndpoint())
	enableFor(ctx, t, root, "alice", "a")
	if err := putOver(ctx, newClient(t, c.dialer("alice", c.ca, c.ca), m.testEndpoint()), "a"); err != nil {
		t.Fatal(err)
	}
	ticker, deadline := time.NewTicker(10*time.Millisecond), time.Now().Add(testWait)
	defer ticker.Stop()
	for {
		lines, text := auditLines(t, path)
		if slices.ContainsFunc(lines, func(l auditLine) bool {
			return l.Op == "KV/Put" && l.User == "alice" && l.CN == "alice" && l.Code == "OK"
		}) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no line of alice's put in\n%s", text)
		}
		<-ticker.C
	}
}
