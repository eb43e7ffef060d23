package table

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health/grpc_health_v1" // its descriptors
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/kvorum/kvorum/proto/authpb"
	_ "github.com/kvorum/kvorum/proto/etcdserverpb"
	_ "github.com/kvorum/kvorum/proto/membershippb"
	_ "github.com/kvorum/kvorum/proto/mvccpb"
	_ "github.com/kvorum/kvorum/proto/v3electionpb"
	_ "github.com/kvorum/kvorum/proto/v3lockpb"
)

const askMax = 30 * time.Second

// ask is a request whose outcome is known. They are asked in order.
type ask struct {
	method, request string // JSON, with $NAMES
	want            codes.Code
	keep            string // field of the answer that becomes a variable; "$NAME=field.field"
}

// asks cover every method. The token is sent once there is one.
func asks() []ask {
	const kv, lease, cluster, care, auth = "etcdserverpb.KV/", "etcdserverpb.Lease/", "etcdserverpb.Cluster/", "etcdserverpb.Maintenance/", "etcdserverpb.Auth/"
	const lock, election = "v3lockpb.Lock/", "v3electionpb.Election/"
	return []ask{
		{method: kv + "Put", request: `{"key":"aw==","value":"dg=="}`},
		{method: kv + "Range", request: `{"key":"aw=="}`},
		{method: kv + "RangeStream", request: `{"key":"aw=="}`},
		{method: kv + "Txn", request: `{"compare":[{"key":"aw==","target":"VALUE","value":"dg=="}],"success":[{"request_put":{"key":"aw==","value":"dw=="}}]}`, keep: "$REV=header.revision"},
		{method: kv + "DeleteRange", request: `{"key":"eA=="}`},
		{method: kv + "Compact", request: `{"revision":"$REV"}`},
		{method: "etcdserverpb.Watch/Watch", request: `{"create_request":{"key":"aw=="}}`},
		{method: lease + "LeaseGrant", request: `{"TTL":"600","ID":"77"}`},
		{method: lease + "LeaseKeepAlive", request: `{"ID":"77"}`},
		{method: lease + "LeaseTimeToLive", request: `{"ID":"77","keys":true}`},
		{method: lease + "LeaseLeases"},
		{method: lock + "Lock", request: `{"name":"bA==","lease":"77"}`, keep: "$LOCK=key"},
		{method: lock + "Unlock", request: `{"key":"$LOCK"}`},
		{method: election + "Campaign", request: `{"name":"ZQ==","lease":"77","value":"bWU="}`, keep: "$LEADER=leader"},
		{method: election + "Proclaim", request: `{"leader":$LEADER,"value":"eW91"}`},
		{method: election + "Leader", request: `{"name":"ZQ=="}`},
		{method: election + "Observe", request: `{"name":"ZQ=="}`},
		{method: election + "Resign", request: `{"leader":$LEADER}`},
		{method: lease + "LeaseRevoke", request: `{"ID":"77"}`},
		{method: cluster + "MemberList", keep: "$MEMBER=members.0.ID"},
		{method: cluster + "MemberAdd", request: `{"peerURLs":["http://127.0.0.1:1"],"isLearner":true}`, keep: "$LEARNER=member.ID"},
		{method: cluster + "MemberUpdate", request: `{"ID":"$LEARNER","peerURLs":["http://127.0.0.1:2"]}`},
		{method: cluster + "MemberPromote", request: `{"ID":"$MEMBER"}`, want: codes.FailedPrecondition},
		{method: cluster + "MemberRemove", request: `{"ID":"$LEARNER"}`},
		{method: care + "Alarm", request: `{"alarm":"NOSPACE"}`},
		{method: care + "Status"},
		{method: care + "Defragment"},
		{method: care + "Hash"},
		{method: care + "HashKV"},
		{method: care + "Snapshot"},
		{method: care + "MoveLeader", request: `{"targetID":"$MEMBER"}`},
		{method: care + "MoveLeader", request: `{"targetID":"1"}`, want: codes.FailedPrecondition},
		{method: care + "Downgrade", request: `{"action":"VALIDATE","version":"3.6.0"}`},
		{method: care + "Downgrade", request: `{"action":"ENABLE","version":"3.6.0"}`},
		{method: care + "Downgrade", request: `{"action":"CANCEL"}`},
		{method: "grpc.health.v1.Health/Check"},
		{method: "grpc.health.v1.Health/Watch"},
		{method: "grpc.health.v1.Health/List"},
		{method: auth + "AuthStatus"},
		{method: auth + "UserAdd", request: `{"name":"root","password":"pw"}`},
		{method: auth + "UserAdd", request: `{"name":"u","password":"pw"}`},
		{method: auth + "UserChangePassword", request: `{"name":"u","password":"pw2"}`},
		{method: auth + "RoleAdd", request: `{"name":"root"}`},
		{method: auth + "RoleAdd", request: `{"name":"r"}`},
		{method: auth + "UserGrantRole", request: `{"user":"root","role":"root"}`},
		{method: auth + "UserGrantRole", request: `{"user":"u","role":"r"}`},
		{method: auth + "RoleGrantPermission", request: `{"name":"r","perm":{"permType":"READ","key":"aw=="}}`},
		{method: auth + "AuthEnable"},
		{method: auth + "Authenticate", request: `{"name":"root","password":"pw"}`, keep: "$TOKEN=token"},
		{method: auth + "UserGet", request: `{"name":"u"}`},
		{method: auth + "UserList"},
		{method: auth + "RoleGet", request: `{"role":"r"}`},
		{method: auth + "RoleList"},
		{method: auth + "RoleRevokePermission", request: `{"role":"r","key":"aw=="}`},
		{method: auth + "UserRevokeRole", request: `{"name":"u","role":"r"}`},
		{method: auth + "UserDelete", request: `{"name":"u"}`},
		{method: auth + "RoleDelete", request: `{"role":"r"}`},
		{method: auth + "AuthDisable"},
	}
}

func rpcRows(w *world) (rows []row) {
	failed := w.askAll()
	for _, f := range facts(w.T, "etcd/rpcs.txt", 6) {
		service, method, _ := strings.Cut(f[0], "/")
		r := row{group: service, name: method, state: met}
		if why := signature(f); why != "" {
			r.state, r.why = differs, why
		} else if why, asked := failed[f[0]]; !asked {
			w.Errorf("nobody asks %s", f[0])
		} else if why != "" {
			r.state, r.why = refused, why
		}
		rows = append(rows, r)
	}
	for _, f := range facts(w.T, "etcd/rpcs.txt", 6) {
		for _, path := range strings.Fields(strings.Trim(f[4], "-")) {
			r := row{group: "JSON gateway", name: path, state: met}
			if why := w.post(path); why != "" {
				r.state, r.why = absent, why
			}
			rows = append(rows, r)
		}
	}
	return rows
}

// signature compares a method with what etcd has; "" is no difference.
func signature(f []string) string {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(f[0], "/", ".")))
	if err != nil {
		return "no such method"
	}
	m, ok := d.(protoreflect.MethodDescriptor)
	if !ok {
		return "not a method"
	}
	kind := map[[2]bool]string{{false, false}: "unary", {false, true}: "server-stream", {true, true}: "bidi"}[[2]bool{m.IsStreamingClient(), m.IsStreamingServer()}]
	if got := fmt.Sprint(kind, m.Input().Name(), m.Output().Name()); got != fmt.Sprint(f[1], f[2], f[3]) {
		return "it is " + got
	}
	return ""
}

// askAll gives for each method why it failed, or "".
func (w *world) askAll() map[string]string {
	w.Helper()
	conn, err := grpc.NewClient(w.member.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = conn.Close() })
	failed := map[string]string{}
	for _, a := range asks() {
		answer, err := w.ask(conn, a)
		if got := status.Code(err); got != a.want {
			failed[a.method] = status.Convert(err).Message()
			if err == nil {
				failed[a.method] = "no error, want " + a.want.String()
			}
			continue
		}
		if _, ok := failed[a.method]; !ok {
			failed[a.method] = ""
		}
		if a.keep != "" {
			w.keep(a.keep, answer)
		}
	}
	return failed
}

func (w *world) ask(conn *grpc.ClientConn, a ask) (answer proto.Message, err error) {
	w.Helper()
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(a.method, "/", ".")))
	if err != nil {
		return nil, status.Error(codes.Unimplemented, err.Error())
	}
	m, _ := d.(protoreflect.MethodDescriptor)
	request, answer := w.message(m.Input()), w.message(m.Output())
	if a.request != "" {
		if err := protojson.Unmarshal([]byte(w.fill(a.request)), request); err != nil {
			w.Fatalf("%s: %v", a.method, err)
		}
	}
	ctx, cancel := context.WithTimeout(w.Context(), askMax)
	defer cancel()
	if token := w.vars["$TOKEN"]; token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "token", token)
	}
	if !m.IsStreamingServer() {
		return answer, conn.Invoke(ctx, "/"+a.method, request, answer)
	}
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: m.IsStreamingClient()}, "/"+a.method)
	if err == nil {
		err = s.SendMsg(request)
	}
	if err == nil && !m.IsStreamingClient() {
		err = s.CloseSend()
	}
	if err == nil {
		err = s.RecvMsg(answer)
	}
	return answer, err
}

func (w *world) message(d protoreflect.MessageDescriptor) proto.Message {
	w.Helper()
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		w.Fatal(err)
	}
	return t.New().Interface()
}

// keep makes a part of an answer a variable.
func (w *world) keep(what string, answer proto.Message) {
	w.Helper()
	name, path, _ := strings.Cut(what, "=")
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(answer)
	var v any
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil {
		w.Fatal(err)
	}
	for part := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[part]
		case []any:
			v = x[0]
		}
	}
	if s, ok := v.(string); ok {
		w.vars[name] = s
		return
	}
	if text, err = json.Marshal(v); err != nil || string(text) == "null" {
		w.Fatalf("the answer has no %s", path)
	}
	w.vars[name] = string(text)
}

// post tells why a path of the gateway is not served, with a body that no method
// takes, so that nothing happens.
func (w *world) post(path string) string {
	w.Helper()
	answer, err := http.Post(w.member.ClientURL+path, "application/json", strings.NewReader(`[`))
	if err != nil {
		w.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		w.Fatal(err)
	}
	if answer.StatusCode == http.StatusNotFound {
		return answer.Status
	}
	if !json.Valid(text) {
		return fmt.Sprintf("%s, not JSON", answer.Status)
	}
	return ""
}
