package peer

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// headerOf is what member 2 would send to member 1, with changes: name, value
// pairs, "" for a header that is missing.
func headerOf(changes ...string) http.Header {
	h := http.Header{}
	h.Set("X-Server-From", "2")
	h.Set("X-Server-Version", "3.7.1")
	h.Set("X-Min-Cluster-Version", "3.0.0")
	h.Set("X-Etcd-Cluster-ID", hexID(testCluster))
	h.Set("X-Raft-To", "1")
	h.Set("X-PeerURLs", "http://127.0.0.1:1")
	for i := 0; i < len(changes); i += 2 {
		if changes[i+1] == "" {
			h.Del(changes[i])
		} else {
			h.Set(changes[i], changes[i+1])
		}
	}
	return h
}

func encoded(t *testing.T, m *raftpb.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A wrong answer makes an etcd member retry for ever, stop itself, or join a
// cluster that is not its own.
func TestRefusals(t *testing.T) {
	rec := newRecorder()
	rec.remove(9)
	tr, err := New(Config{Self: 1, Cluster: testCluster, Receiver: rec, SnapDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Add(2, []string{"http://127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	message := encoded(t, heartbeatTo(2, 1, 1))
	snap, err := appendSized(nil, heartbeatTo(2, 1, 1))
	if err != nil {
		t.Fatal(err)
	}
	removedSnap, err := appendSized(nil, snapTo(9, 1, 7))
	if err != nil {
		t.Fatal(err)
	}
	noIndex, err := appendSized(nil, snapTo(2, 1, 0))
	if err != nil {
		t.Fatal(err)
	}
	const stream, app = "/raft/stream/message/2", "/raft/stream/msgapp/2"
	cases := []struct {
		name, method, path string
		header             http.Header
		body               []byte
		status             int
		text               string
	}{
		{"no version is 2.0", "GET", stream, headerOf("X-Server-Version", ""), nil, 412, "incompatible version"},
		{"old server", "GET", stream, headerOf("X-Server-Version", "2.3.8"), nil, 412, "incompatible version"},
		{"no version at all", "GET", stream, headerOf("X-Server-Version", "x"), nil, 412, "incompatible version"},
		{"wants newer", "GET", app, headerOf("X-Min-Cluster-Version", "3.8.0"), nil, 412, "incompatible version"},
		{"wants newer, post", "POST", "/raft", headerOf("X-Min-Cluster-Version", "4.0.0"), message, 412, "incompatible version"},
		{"version before cluster", "GET", app, headerOf("X-Server-Version", "", "X-Etcd-Cluster-ID", "1"), nil, 412, "incompatible version"},
		{"other cluster", "GET", stream, headerOf("X-Etcd-Cluster-ID", "1"), nil, 412, "cluster ID mismatch"},
		{"no cluster", "POST", "/raft", headerOf("X-Etcd-Cluster-ID", ""), message, 412, "cluster ID mismatch"},
		{"other cluster, snapshot", "POST", "/raft/snapshot", headerOf("X-Etcd-Cluster-ID", "1"), snap, 412, "cluster ID mismatch"},
		{"cluster before path", "GET", "/raft/stream/foo/2", headerOf("X-Etcd-Cluster-ID", "1"), nil, 412, "cluster ID mismatch"},
		{"unknown stream", "GET", "/raft/stream/foo/2", headerOf(), nil, 404, "invalid path"},
		{"deeper path", "GET", "/raft/stream/x/message/2", headerOf(), nil, 404, "invalid path"},
		{"bad id", "GET", "/raft/stream/message/zz", headerOf(), nil, 404, "invalid from"},
		{"no id", "GET", "/raft/stream/message", headerOf(), nil, 404, "invalid from"},
		{"removed", "GET", "/raft/stream/message/9", headerOf("X-Server-From", "9"), nil, 410, "removed member"},
		{"removed before to", "GET", "/raft/stream/msgapp/9", headerOf("X-Raft-To", "5"), nil, 410, "removed member"},
		{"unknown", "GET", "/raft/stream/message/5", headerOf("X-Server-From", "5"), nil, 404, "error sender not found"},
		{"for another", "GET", stream, headerOf("X-Raft-To", "5"), nil, 412, "to field mismatch"},
		{"for nobody", "GET", app, headerOf("X-Raft-To", ""), nil, 412, "to field mismatch"},
		{"stream by POST", "POST", stream, headerOf(), nil, 405, "Method Not Allowed"},
		{"post by GET", "GET", "/raft", headerOf(), nil, 405, "Method Not Allowed"},
		{"snapshot by GET", "GET", "/raft/snapshot", headerOf(), nil, 405, "Method Not Allowed"},
		{"not a message", "POST", "/raft", headerOf(), []byte{0xff, 0xff}, 400, "error unmarshalling raft message"},
		{"message from removed", "POST", "/raft", headerOf(), encoded(t, heartbeatTo(9, 1, 1)), 403, "cannot process message from removed member"},
		{"message to another", "POST", "/raft", headerOf(), encoded(t, heartbeatTo(2, 5, 1)), 500, "error processing raft message"},
		{"snapshot cut in its length", "POST", "/raft/snapshot", headerOf(), []byte{0, 0}, 400, "failed to decode raft message (unexpected EOF)"},
		{"snapshot too large a message", "POST", "/raft/snapshot", headerOf(), []byte{0xf, 0, 0, 0, 0, 0, 0, 2, 8, 8}, 400, "failed to decode raft message (length 1080863910568919042: peer: message too large)"},
		{"snapshot of another type", "POST", "/raft/snapshot", headerOf(), snap, 400, "wrong raft message type"},
		{"snapshot without index", "POST", "/raft/snapshot", headerOf(), noIndex, 400, "wrong raft message type"},
		{"snapshot from removed", "POST", "/raft/snapshot", headerOf(), removedSnap, 403, "cannot process message from removed member"},
		{"unknown path", "GET", "/raft/other", headerOf(), nil, 404, "404 page not found"},
		{"good post", "POST", "/raft", headerOf(), message, 204, ""},
		{"newer server", "POST", "/raft", headerOf("X-Server-Version", "3.8.0-alpha.1", "X-Min-Cluster-Version", ""), message, 204, ""},
		{"probe", "GET", "/raft/probing", http.Header{}, nil, 200, `{"OK":true,"Now":"20`},
	}
	for _, c := range cases {
		w := call(tr.Handler(), c.method, c.path, c.header, c.body)
		text := strings.TrimSuffix(w.Body.String(), "\n")
		if w.Code != c.status || (text != c.text && c.name != "probe") || !strings.HasPrefix(text, c.text) {
			t.Errorf("%s: %d %q, want %d %q", c.name, w.Code, text, c.status, c.text)
		}
		wantID := hexID(testCluster)
		if c.status == 405 || c.status == 200 || c.name == "unknown path" {
			wantID = ""
		}
		if got := w.Header()["X-Etcd-Cluster-ID"]; strings.Join(got, "") != wantID { //nolint:staticcheck // as etcd spells it
			t.Errorf("%s: X-Etcd-Cluster-ID %q, want %q", c.name, got, wantID)
		}
		if v := w.Header().Get("X-Server-Version"); (v == "3.7.1") != (c.method == "GET" && strings.HasPrefix(c.path, "/raft/stream/")) {
			t.Errorf("%s: X-Server-Version %q", c.name, v)
		}
	}
	if n := len(rec.msgs); n != 2 {
		t.Errorf("%d messages were taken, want 2", n)
	}
}

// A message that the owner cannot take must look like a failure to the sender.
func TestPostThatIsNotTaken(t *testing.T) {
	rec := newRecorder()
	tr, err := New(Config{Self: 1, Cluster: testCluster, Receiver: rec})
	if err != nil {
		t.Fatal(err)
	}
	rec.set(http.ErrServerClosed, nil)
	if w := call(tr.Handler(), "POST", "/raft", headerOf(), encoded(t, heartbeatTo(2, 1, 1))); w.Code != 500 {
		t.Errorf("status %d, want 500", w.Code)
	}
}

// A member that has fallen behind must be able to answer one that it does not
// know yet, or it never catches up.
func TestUnknownCallerIsRemembered(t *testing.T) {
	rec := newRecorder()
	rec.remove(9)
	tr, err := New(Config{Self: 1, Cluster: testCluster, Receiver: rec, RemotesUnknownMax: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"5", "9", "6", "7"} {
		call(tr.Handler(), "GET", "/raft/stream/message/"+id, headerOf("X-Server-From", id), nil)
		call(tr.Handler(), "POST", "/raft", headerOf("X-Server-From", id), []byte{})
	}
	var got []uint64
	for _, s := range tr.Stats() {
		if !s.Remote {
			t.Errorf("%x is a peer", s.ID)
		}
		got = append(got, s.ID)
	}
	if len(got) != 2 || got[0] != 5 || got[1] != 6 {
		t.Errorf("remembered %x, want 5 and 6: neither the removed member nor more than allowed", got)
	}
	call(tr.Handler(), "POST", "/raft", headerOf("X-Server-From", "1"), []byte{})
	if len(tr.Members()) != 2 {
		t.Error("the transport remembers itself")
	}
}

// A wrong URL must be refused where the operator typed it.
func TestParseURLs(t *testing.T) {
	for _, bad := range [][]string{nil, {"ftp://x"}, {"http://"}, {"unix://"}, {"http://a", ":"}} {
		if _, err := parseURLs(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	bases, err := parseURLs([]string{"http://a:1/", " https://b:2/p/ ", "unix://localhost:m1", "unixs:///run/x.sock"})
	if err != nil {
		t.Fatal(err)
	}
	if bases[0].url != "http://a:1" || bases[1].url != "https://b:2/p" {
		t.Errorf("%v", bases)
	}
	for i, want := range []string{"localhost:m1", "/run/x.sock"} {
		host := bases[2+i].url[bytes.IndexByte([]byte(bases[2+i].url), '/')+2:]
		network, path, err := socketOf(host + ":80")
		if err != nil || network != "unix" || path != want {
			t.Errorf("%s %s %v, want unix %s", network, path, err, want)
		}
	}
}
