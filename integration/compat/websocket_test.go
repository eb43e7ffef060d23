package compat

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/kvorum/kvorum/integration/compat/process"
)

// talk says something on a WebSocket and gives the frames that come back, as many
// as asked for.
func talk(t *testing.T, c *process.Cluster, path string, header http.Header, frames int, says ...string) (heard []string) {
	t.Helper()
	url := strings.Replace(c.Members[0].ClientURL, "http", "ws", 1) + path
	conn, answer, err := websocket.DefaultDialer.DialContext(t.Context(), url, header)
	if err != nil {
		t.Fatalf("%s: %v %v", path, err, answer)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetReadDeadline(time.Now().Add(waitMax))
	for _, text := range says {
		if err := conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for range frames {
		kind, frame, err := conn.ReadMessage()
		if err != nil || kind != websocket.TextMessage {
			t.Fatalf("%s after %q: %d, %v", path, heard, kind, err)
		}
		heard = append(heard, steadyBody(path, string(frame)))
	}
	return heard
}

// If this fails, a page that talks to etcd over a WebSocket hears something else
// here.
func TestWebSocketAsEtcd(t *testing.T) {
	p := startPair(t, 1)
	client := noRedirects(&http.Transport{})
	p.compare(t, client, posts("/v3/kv/put", `{"key":"YQ==","value":"Yg=="}`, `{"key":"YQ==","value":"Yw=="}`)...)
	p.compare(t, client, posts("/v3/lease/grant", `{"TTL":1000,"ID":7}`)...)
	for _, c := range []struct {
		path   string
		header http.Header
		frames int
		says   []string
	}{
		{"/v3/watch", nil, 2, []string{`{"create_request":{"key":"YQ==","start_revision":1}}`}},
		{"/v3/watch?method=GET", nil, 3, []string{`{"create_request":{"key":"YQ==","watch_id":5}}`, `{"cancel_request":`, `{"watch_id":5}}{"create_request":{"key":"Yg=="}}`}},
		{"/v3beta/watch", nil, 1, []string{`{"create_request":{"key":"YQ==","range_end":"QQ=="}}`}},
		{"/v3/watch", http.Header{"Authorization": {"x"}}, 1, []string{`{"create_request":{"key":"YQ=="}}`}},
		{"/v3/lease/keepalive", http.Header{"Sec-Websocket-Protocol": {"Bearer, x"}}, 2, []string{`{"ID":7}`, `{"ID":8}`}},
		{"/v3/nope", nil, 1, []string{`{}`}},
	} {
		want, got := talk(t, p.etcd, c.path, c.header, c.frames, c.says...), talk(t, p.kvorum, c.path, c.header, c.frames, c.says...)
		if !slices.Equal(got, want) {
			t.Errorf("%s %q:\netcd   %q\nkvorum %q", c.path, c.says, want, got)
		}
	}
}
