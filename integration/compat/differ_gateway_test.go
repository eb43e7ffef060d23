package compat

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// call is one HTTP request of a differential test.
type call struct {
	method, path, body string
	header             map[string]string
}

func (c call) String() string {
	return fmt.Sprintf("%s %s %v %.400q", c.method, c.path, c.header, c.body)
}

// sameHeaders are the headers that must be equal; the others are the HTTP library's and the time of day.
var sameHeaders = []string{
	"Content-Type", "Grpc-Metadata-Content-Type", "Access-Control-Allow-Methods", "Access-Control-Allow-Origin",
	"Access-Control-Allow-Headers", "Www-Authenticate", "Allow", "Location", "Trailer", "X-Content-Type-Options",
}

// callMax bounds one request; those that go on for ever end with it on both sides.
const callMax = 2 * time.Second

// do makes the request and gives the answer as text, after normalisation.
func (p *player) do(c call) string {
	ctx, cancel := context.WithTimeout(p.ctx, callMax)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, c.method, "http://"+p.endpoint()+c.path, strings.NewReader(c.body))
	if err != nil {
		return err.Error()
	}
	for name, value := range c.header {
		r.Header.Set(name, value)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(r)
	if err != nil {
		return "no answer"
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	var b strings.Builder
	fmt.Fprintf(&b, "%d\n", answer.StatusCode)
	for _, name := range sameHeaders {
		if values := answer.Header[name]; len(values) > 0 {
			fmt.Fprintf(&b, "%s: %q\n", name, values)
		}
	}
	b.WriteString(normalJSON(body))
	if err != nil {
		b.WriteString("the body breaks off\n")
	}
	return b.String()
}

// unstable are the fields of answers that differ between servers that behave alike (see normalise).
var unstable = []string{
	"raft_term", "raftTerm", "raftIndex", "raftAppliedIndex", "dbSize", "dbSizeInUse", "hash", "token", "version", "blob", "remaining_bytes",
}

// normalJSON is a body as indented JSON, without what is unstable; one that is no JSON stays as it is. The JSON
// libraries put spaces at random.
func normalJSON(body []byte) string {
	var out strings.Builder
	for decoder := json.NewDecoder(bytes.NewReader(body)); ; {
		var value any
		if err := decoder.Decode(&value); err == io.EOF {
			return out.String()
		} else if err != nil {
			return string(body) + "\n"
		}
		text, err := json.MarshalIndent(withoutUnstable(value), "", " ")
		if err != nil {
			panic(err) // it has just been decoded
		}
		out.WriteString(normalText(string(text)) + "\n")
	}
}

// chosenID is an id of a lease that a server has chosen: its own id's part, and the time.
var chosenID = regexp.MustCompile(`^[5-9]\d{18}$`)

func withoutUnstable(value any) any {
	switch v := value.(type) {
	case map[string]any:
		_, remains := v["grantedTTL"]
		for name := range v {
			if slices.Contains(unstable, name) || remains && name == "TTL" {
				v[name] = "…"
				continue
			}
			if id, ok := v[name].(string); ok && chosenID.MatchString(id) {
				v[name] = "chosen"
				continue
			}
			v[name] = withoutUnstable(v[name])
		}
	case []any:
		for i := range v {
			v[i] = withoutUnstable(v[i])
		}
	}
	return value
}

// routes are the gateway's paths and the methods behind them.
func routes() map[string]string {
	all := map[string]string{}
	for _, service := range []string{"KV", "Lease", "Cluster", "Maintenance", "Auth"} {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName("etcdserverpb." + service))
		if err != nil {
			panic(err) // linked in
		}
		methods := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range methods.Len() {
			m := methods.Get(i)
			path := pathOf(string(m.Name()))
			if path != "" && !m.IsStreamingClient() {
				all[path] = fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
			}
		}
	}
	return all
}

func pathOf(method string) string {
	return map[string]string{
		"Range": "/v3/kv/range", "Put": "/v3/kv/put", "DeleteRange": "/v3/kv/deleterange", "Txn": "/v3/kv/txn", "Compact": "/v3/kv/compaction",
		"LeaseGrant": "/v3/lease/grant", "LeaseRevoke": "/v3/lease/revoke", "LeaseTimeToLive": "/v3/lease/timetolive", "LeaseLeases": "/v3/lease/leases",
		"MemberAdd": "/v3/cluster/member/add", "MemberRemove": "/v3/cluster/member/remove", "MemberUpdate": "/v3/cluster/member/update",
		"MemberList": "/v3/cluster/member/list", "MemberPromote": "/v3/cluster/member/promote",
		"Alarm": "/v3/maintenance/alarm", "Status": "/v3/maintenance/status", "Defragment": "/v3/maintenance/defragment",
		"HashKV": "/v3/maintenance/hashkv", "Hash": "/v3/maintenance/hash", "MoveLeader": "/v3/maintenance/transfer-leadership",
		"AuthStatus": "/v3/auth/status", "AuthEnable": "/v3/auth/enable", "AuthDisable": "/v3/auth/disable", "Authenticate": "/v3/auth/authenticate",
		"UserAdd": "/v3/auth/user/add", "UserGet": "/v3/auth/user/get", "UserList": "/v3/auth/user/list", "UserDelete": "/v3/auth/user/delete",
		"UserChangePassword": "/v3/auth/user/changepw", "UserGrantRole": "/v3/auth/user/grant", "UserRevokeRole": "/v3/auth/user/revoke",
		"RoleAdd": "/v3/auth/role/add", "RoleGet": "/v3/auth/role/get", "RoleList": "/v3/auth/role/list", "RoleDelete": "/v3/auth/role/delete",
		"RoleGrantPermission": "/v3/auth/role/grant", "RoleRevokePermission": "/v3/auth/role/revoke",
	}[method]
}

// Programs without a gRPC library use the JSON gateway; what it makes of odd JSON they have learned from etcd's.
func TestDifferentialGateway(t *testing.T) {
	seed := differSeed(t)
	t.Logf("seed %d; replay: KVORUM_SEED=%d go test -run '%s'", seed, seed, t.Name())
	p := newPair(t)
	for _, c := range append(fixedCalls(), randomCalls(newDraw(seed, false), 400)...) {
		var answers [2]string
		p.each(func(player *player) {
			answer := player.do(c)
			if player == p.etcd {
				answers[0] = answer
			} else {
				answers[1] = answer
			}
		})
		if answers[0] != answers[1] && acceptedCall(c, answers[0], answers[1]) == "" {
			t.Errorf("%s\n%s", c, diffLines(answers[0], answers[1]))
		}
	}
}

// acceptedCall tells why a difference stays; "" when it does not.
func acceptedCall(c call, etcd, kvorum string) string {
	switch {
	case c.path == pathOf("HashKV") && remembered(etcd, kvorum):
		return "docs/adr/0002"
	case strings.Contains(kvorum, "int64 field") && strings.Contains(kvorum, "invalid value for"):
		return "etcd's release of the protobuf library takes a number in quotes up to the first byte that is none"
	case strings.HasPrefix(c.path, "/v3/watch") || strings.HasPrefix(c.path, "/v3/lease/keepalive"):
		if strings.Contains(kvorum, "invalid character") || strings.Contains(kvorum, "unexpected EOF") {
			return "etcd breaks the connection, or says nothing, where a stream's JSON is wrong; Kvorum says what is wrong"
		}
	}
	return ""
}

// fixedCalls are requests that somebody might make by mistake or by hand.
func fixedCalls() []call {
	var all []call
	post := func(path, body string) { all = append(all, call{method: http.MethodPost, path: path, body: body}) }
	for _, path := range []string{"/v3/kv/put", "/v3beta/kv/put", "/v3alpha/kv/put", "/v3/kv/put/", "/v3/kv", "/v3/", "/v3", "/v3/kv/nothing", "/V3/kv/put", "//v3/kv/put", "/v3//kv/put", "/v3/kv/../kv/put"} {
		post(path, `{"key":"YQ==","value":"MQ=="}`)
		for _, method := range []string{"GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"} {
			all = append(all, call{method: method, path: path, body: `{"key":"YQ=="}`})
		}
	}
	for _, body := range []string{
		``, ` `, `{}`, `null`, `[]`, `"x"`, `1`, `{`, `}`, `{"key"}`, `{"key":}`, `{"key":"YQ=="`, `{"key":"YQ=="}}`, `{"key":"YQ=="} {"key":"Yg=="}`,
		`{"key":"YQ==",}`, `{'key':'YQ=='}`, `{"key":"YQ=="}garbage`, "\xff", "{\"key\":\"\xff\"}", `{"key":"YQ==","key":"Yg=="}`,
		`{"key":"YQ"}`, `{"key":"Y-_-"}`, `{"key":"Y+/+"}`, `{"key":"YQ="}`, `{"key":"?"}`, `{"key":"YQ==YQ=="}`, `{"key":" YQ=="}`, `{"key":"Y\nQ=="}`, `{"key":1}`,
		`{"key":null}`, `{"key":true}`, `{"key":["YQ=="]}`, `{"key":{}}`, `{"Key":"YQ=="}`, `{"KEY":"YQ=="}`,
		`{"key":"YQ==","nothing":1}`, `{"key":"YQ==","nothing":{"deep":[1,2,{}]}}`, `{"key":"YQ==","range_end":"Yg==","rangeEnd":"Yw=="}`,
		`{"key":"YQ==","rangeEnd":"AA=="}`, `{"key":"YQ==","limit":"1"}`, `{"key":"YQ==","limit":1}`, `{"key":"YQ==","limit":1.0}`, `{"key":"YQ==","limit":1.5}`,
		`{"key":"YQ==","limit":1e2}`, `{"key":"YQ==","limit":"1e2"}`, `{"key":"YQ==","limit":"x"}`, `{"key":"YQ==","limit":""}`, `{"key":"YQ==","limit":" 1"}`,
		`{"key":"YQ==","limit":9223372036854775808}`, `{"key":"YQ==","limit":-9223372036854775808}`, `{"key":"YQ==","limit":true}`, `{"key":"YQ==","limit":[]}`, `{"key":"YQ==","limit":null}`,
		`{"key":"YQ==","serializable":"true"}`, `{"key":"YQ==","serializable":1}`, `{"key":"YQ==","serializable":true}`, `{"key":"YQ==","serializable":null}`,
		`{"key":"YQ==","sort_order":"DESCEND"}`, `{"key":"YQ==","sortOrder":2}`, `{"key":"YQ==","sort_order":"2"}`, `{"key":"YQ==","sort_order":"descend"}`, `{"key":"YQ==","sort_order":"NOPE"}`,
		`{"key":"YQ==","sort_order":99}`, `{"key":"YQ==","sort_order":-1}`, `{"key":"YQ==","sort_target":"VALUE"}`, `{"key":"YQ==","sort_order":1.0}`, `{"key":"YQ==","sort_order":null}`,
		`{"key":"YQ==","revision":"-1"}`, `{"key":"YQ==","revision":"99999"}`, `{"key":""}`, strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200),
		strings.Repeat(`[`, 20000), `{"key":"YQ==","\u006cimit":"1"}`, `{"key":"\u0059Q=="}`, `{"key":"\ud800"}`, "\ufeff{}", `{"key":"YQ=="} `, `{"key":NaN}`, `{"key":"YQ==","limit":"NaN"}`, `{"key":"YQ==","limit":0x10}`, `{"key":"YQ==","limit":01}`,
	} {
		post("/v3/kv/range", body)
		post("/v3/kv/put", body)
	}
	for _, body := range []string{
		`{"compare":[{"key":"YQ==","target":"VERSION","result":"GREATER","version":"0"}],"success":[{"requestPut":{"key":"YQ==","value":"Mg=="}}],"failure":[{"request_range":{"key":"YQ=="}}]}`,
		`{"compare":[{"key":"YQ==","version":"0","value":"MQ=="}]}`, `{"success":[{"request_put":{"key":"YQ=="},"request_range":{"key":"YQ=="}}]}`,
		`{"success":[{}]}`, `{"success":{}}`, `{"success":[null]}`, `{"success":[{"request_txn":{"success":[{"request_delete_range":{"key":"YQ=="}}]}}]}`,
		`{"success":[{"request_put":null}]}`, `{"compare":[{"target":9,"key":"YQ=="}]}`, `{"compare":[{"target":"9","result":"NOPE","key":"YQ=="}]}`,
	} {
		post("/v3/kv/txn", body)
	}
	for _, header := range []map[string]string{
		{"Content-Type": "text/plain"}, {"Content-Type": "application/x-protobuf"}, {"Accept": "text/plain"}, {"Grpc-Metadata-Hasleader": "true"}, {"Grpc-Timeout": "1S"}, {"Grpc-Timeout": "nonsense"},
		{"Authorization": "nonsense"}, {"Origin": "http://elsewhere"}, {"X-HTTP-Method-Override": "GET"}, {"Content-Type": "application/x-www-form-urlencoded"}, {"Host": "elsewhere"}, {"Accept": "text/event-stream"},
	} {
		all = append(all, call{method: http.MethodPost, path: "/v3/kv/range", body: `{"key":"YQ=="}`, header: header},
			call{method: http.MethodGet, path: "/v3/kv/range", body: `{"key":"YQ=="}`, header: header})
	}
	for _, path := range []string{"/v3/kv/range?key=YQ==", "/v3/kv/range?limit=x", "/v3/kv/lease/leases", "/v3/kv/lease/timetolive", "/v3/kv/lease/revoke", "/v3/lease/keepalive", "/v3/watch",
		"/v3/lock/lock", "/v3/lock/unlock", "/v3/election/leader", "/v3/election/proclaim", "/v3/election/resign", "/v3/kv/range%20", "/v3/kv%2frange"} {
		post(path, `{"key":"YQ==","name":"YQ==","lease":"77","ID":"77"}`)
	}
	post("/v3/watch", `{"create_request":{"key":"YQ==","range_end":"AQ=="}}`+"garbage")
	post("/v3/watch", "garbage")
	post("/v3/lease/keepalive", `{"ID":77}{"ID":"78"}`)
	post("/v3/lease/keepalive", `{"ID":`)
	return all
}

// randomCalls are the requests of the random test as JSON, some of them damaged.
func randomCalls(d *draw, n int) []call {
	var all []call
	for known := routes(); len(all) < n; {
		s := d.next(20)
		path := ""
		for route, method := range known {
			if method == s.method {
				path = route
			}
		}
		message := inputOf(s.method)
		if path == "" || s.method == maintenance("Alarm") || proto.Unmarshal(s.request, message) != nil {
			continue
		}
		body, err := protojson.MarshalOptions{UseProtoNames: d.oneIn(2), UseEnumNumbers: d.oneIn(2)}.Marshal(message)
		if err != nil {
			continue // a string that is not UTF-8: there is no JSON of it
		}
		all = append(all, call{method: http.MethodPost, path: path, body: damage(d.Rand, string(body))})
	}
	return all
}

// damage changes one byte of a body now and then. Digits stay: etcd's release of the protobuf library reads a number in
// quotes up to the first byte that is none, and the two stores would part.
func damage(r *rand.Rand, body string) string {
	if r.IntN(4) != 0 || body == "" {
		return body
	}
	at := r.IntN(len(body))
	if body[at] >= '0' && body[at] <= '9' {
		return body
	}
	return body[:at] + string("{}[]\":,x1 \\"[r.IntN(11)]) + body[at+1:]
}
