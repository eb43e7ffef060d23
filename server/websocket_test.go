package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// socket is a WebSocket to a member.
type socket struct {
	*websocket.Conn
	m *testMember
}

func (m *testMember) webSocket(path string, o *websocket.DialOptions) *socket {
	m.t.Helper()
	<-m.served()
	conn, answer, err := websocket.Dial(m.ctx, strings.Replace(m.url(path), "http", "ws", 1), o)
	if err != nil {
		m.t.Fatalf("%s: %v, %v", path, err, answer)
	}
	conn.SetReadLimit(-1)
	m.t.Cleanup(func() { _ = conn.CloseNow() })
	return &socket{conn, m}
}

// served waits until the member answers, and gives a closed channel.
func (m *testMember) served() <-chan struct{} {
	m.request(http.MethodGet, "/health", nil, http.Header{})
	done := make(chan struct{})
	close(done)
	return done
}

func (s *socket) say(text string) {
	s.m.t.Helper()
	if err := s.Write(s.m.ctx, websocket.MessageText, []byte(text)); err != nil {
		s.m.t.Fatal(err)
	}
}

func (s *socket) hear(want string) {
	s.m.t.Helper()
	kind, text, err := s.Read(s.m.ctx)
	if err != nil || kind != websocket.MessageText || !json.Valid(text) || !strings.Contains(string(text), want) {
		s.m.t.Fatalf("%v %s, %v, want %s in it", kind, text, err, want)
	}
}

func (s *socket) ends(want websocket.StatusCode) {
	s.m.t.Helper()
	_, text, err := s.Read(s.m.ctx)
	if got := websocket.CloseStatus(err); got != want {
		s.m.t.Fatalf("%s, %v, want it closed with %v", text, err, want)
	}
}

// If this fails, a page in a browser cannot watch, or is not told what happens.
func TestWebSocketWatch(t *testing.T) {
	m := startMember(t, nil)
	s := m.webSocket("/v3/watch?method=GET", nil)
	s.say(`{"create_request":{"key":"YQ==","watch_id":7}}`)
	s.hear(`"watch_id":"7","created":true`)
	s.say(`{"create_request":{"key":"Yg==",`) // a message may go over frames
	s.say(`"watch_id":8}}{"progress_request":{}}`)
	s.hear(`"watch_id":"8","created":true`)
	s.hear(`"watch_id":"-1"`)
	text(t, m.post("/v3/kv/put", `{"key":"Yg==","value":"MQ=="}`))
	s.hear(`{"result":{"header":`)
	if err := s.Ping(s.CloseRead(m.ctx)); err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := s.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("close: %v", err)
	}
}

// If this fails, a client over WebSocket waits for ever for an answer or for
// word of its mistake.
func TestWebSocketEnds(t *testing.T) {
	m := startMember(t, nil)
	for _, c := range []struct {
		path, say, hear string
		code            websocket.StatusCode
	}{
		{"/v3/watch", `nonsense`, `{"error":{"code":3,"message":"invalid character 'o' in literal null (expecting 'u')"}}`, websocket.StatusInvalidFramePayloadData},
		{"/v3/watch", `{"create_request":{"key":"` + strings.Repeat("A", 5<<20) + `"}}`, `{"error":{"code":8,"message":"grpc: received message larger than max (`, websocket.StatusMessageTooBig},
		{"/v3/watch", `{"create_request":{"key":"` + strings.Repeat("A", 3<<20) + `"}}`, `{"error":{"code":8,"message":"grpc: received message larger than max (`, websocket.StatusMessageTooBig},
		{"/v3/kv/range", `{"key":"YQ=="}`, `{"header":{`, websocket.StatusNormalClosure},
		{"/v3/kv/range", `{}`, `{"code":3,"message":"etcdserver: key is not provided"}`, websocket.StatusInvalidFramePayloadData},
		{"/v3/nope", `{}`, `{"code":5,"message":"Not Found"}`, websocket.StatusPolicyViolation},
	} {
		s := m.webSocket(c.path, nil)
		_ = s.Write(m.ctx, websocket.MessageText, []byte(c.say)) // it may be refused before all is sent
		s.hear(c.hear)
		s.ends(c.code)
	}
	s := m.webSocket("/v3/watch", nil)
	s.say(`{"create_request":{"key":"YQ=="}}`)
	s.hear(`"created":true`)
	m.stop()
	for {
		if _, _, err := s.Read(m.ctx); err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				t.Error("a member that stops leaves its WebSockets open")
			}
			return
		}
	}
}

// If this fails, a page cannot log in, or the page of a stranger uses the login
// of a visitor.
func TestWebSocketLogin(t *testing.T) {
	m := startMember(t, func(c *Config) { c.CORS = []string{"http://known.example"} })
	token := m.loginRoot()
	cookie := http.Header{"Cookie": {"token=" + token}}
	for name, c := range map[string]struct {
		options *websocket.DialOptions
		want    string
	}{
		"no token":              {&websocket.DialOptions{}, "etcdserver: user name is empty"},
		"protocol":              {&websocket.DialOptions{Subprotocols: []string{"Bearer", token}}, `"created":true}}`},
		"bad protocol":          {&websocket.DialOptions{Subprotocols: []string{"Bearer", "x"}}, "etcdserver: invalid auth token"},
		"cookie":                {&websocket.DialOptions{HTTPHeader: cookie}, `"created":true}}`},
		"header":                {&websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {token}}}, `"created":true}}`},
		"cookie of known page":  {&websocket.DialOptions{HTTPHeader: http.Header{"Cookie": cookie["Cookie"], "Origin": {"http://known.example"}}}, `"created":true}}`},
		"protocol, known page ": {&websocket.DialOptions{Subprotocols: []string{"Bearer", token}, HTTPHeader: http.Header{"Origin": {"http://known.example"}}}, `"created":true}}`},
	} {
		t.Run(name, func(t *testing.T) {
			s := m.webSocket("/v3/watch", c.options)
			s.say(`{"create_request":{"key":"YQ=="}}`)
			s.hear(c.want)
		})
	}
	_, answer, err := websocket.Dial(m.ctx, strings.Replace(m.url("/v3/watch"), "http", "ws", 1), &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"http://other.example"}}})
	if err == nil || answer == nil || answer.StatusCode != http.StatusForbidden {
		t.Errorf("the page of a stranger: %v", err)
	}
}

// If this fails, the page of a stranger uses the login of a visitor, where every
// page may ask without one.
func TestWebSocketCookieOfStranger(t *testing.T) {
	m := startMember(t, nil)
	s := m.webSocket("/v3/kv/range", &websocket.DialOptions{HTTPHeader: http.Header{"Cookie": {"token=" + m.loginRoot()}, "Origin": {"http://other.example"}}})
	s.say(`{"key":"YQ=="}`)
	s.hear("etcdserver: user name is empty")
}

// loginRoot turns auth on and gives the token of root.
func (m *testMember) loginRoot() string {
	m.t.Helper()
	auth := pb.NewAuthClient(m.conn)
	must[*pb.AuthUserAddResponse](m.t)(auth.UserAdd(m.ctx, &pb.AuthUserAddRequest{Name: "root", Password: "p"}))
	must[*pb.AuthUserGrantRoleResponse](m.t)(auth.UserGrantRole(m.ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}))
	must[*pb.AuthEnableResponse](m.t)(auth.AuthEnable(m.ctx, &pb.AuthEnableRequest{}))
	return must[*pb.AuthenticateResponse](m.t)(auth.Authenticate(m.ctx, &pb.AuthenticateRequest{Name: "root", Password: "p"})).Token
}
