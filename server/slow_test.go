package server

import (
	"bytes"
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/v3electionpb"
	"github.com/kvorum/kvorum/proto/v3lockpb"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/server/logs"
	"github.com/kvorum/kvorum/server/metrics"
	"github.com/kvorum/kvorum/server/state"
)

// If this fails, nobody is told which requests are slow, or the log fills with
// those that are not.
func TestSlowRequestsAreLogged(t *testing.T) {
	var out bytes.Buffer
	s := &Server{cfg: DefaultConfig(), log: logs.New(&out, 0), metrics: metrics.New()}
	ctx := peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7}})
	for _, c := range []struct {
		took     time.Duration
		request  any
		response any
		want     string
	}{
		{299 * time.Millisecond, &pb.PutRequest{}, nil, ""},
		{
			300 * time.Millisecond, &pb.PutRequest{Key: []byte("foo"), Value: []byte("barsecret"), Lease: 7}, &pb.PutResponse{},
			`"time spent":"300ms","remote":"10.0.0.1:7","response type":"/a/B","request count":1,"request size":18,"response count":0,"response size":0,"request content":"key:\"foo\" value_size:9 lease:7"`,
		},
		{
			time.Second, &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("b")}, &pb.RangeResponse{Count: 3},
			`"request count":0,"request size":6,"response count":3,"response size":2,"request content":"key:\"a\" range_end:\"b\""`,
		},
		{time.Hour, &pb.DefragmentRequest{}, nil, ""}, // slow by its nature
		{time.Hour, nil, nil, ""},                     // a stream
	} {
		out.Reset()
		s.rpcEnded(ctx, "/a/B", c.request, c.response, c.took, nil)
		if line := out.String(); (line == "") != (c.want == "") || !strings.Contains(line, c.want) || strings.Contains(line, "secret") {
			t.Errorf("%T in %v: logged %s, want %s", c.request, c.took, line, c.want)
		}
	}
}

// If this fails, nobody is told which command holds up all others.
func TestSlowAppliesAreLogged(t *testing.T) {
	var out bytes.Buffer
	s := &Server{cfg: DefaultConfig(), log: logs.New(&out, 0), metrics: metrics.New()}
	a := &applier{Server: s}
	command := must[[]byte](t)((&pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: 5}, Put: &pb.PutRequest{Key: []byte("k"), Value: []byte("secret")}}).MarshalVT())
	entry := raft.Entry{Index: 5, Kind: raft.EntryNormal, Data: command}
	for took, want := range map[time.Duration]bool{99 * time.Millisecond: false, 100 * time.Millisecond: true} {
		out.Reset()
		slow := a.slowEntry(took, entry, &state.Result{Response: &pb.PutResponse{Header: &pb.ResponseHeader{Revision: 7}}})
		if slow != want || strings.Contains(out.String(), "secret") {
			t.Errorf("applying in %v: slow %t, logged %s", took, slow, out.String())
		}
		if want {
			const line = `"msg":"apply request took too long","took":"100ms","expected-duration":"100ms","prefix":"","request":"put:<key:\"k\" value_size:6> header:<ID:5>","response":"size:4","index":5`
			if !strings.Contains(out.String(), line) {
				t.Errorf("logged %s, want %s", out.String(), line)
			}
		}
		out.Reset()
		a.slowBatch(took, raft.Apply{Entries: []raft.Entry{entry}})
		if strings.Contains(out.String(), "apply request took too long") != want {
			t.Errorf("applying a batch in %v: logged %q, want a line: %t", took, out.String(), want)
		}
	}
}

// If this fails, passwords, tokens or what clients store can be read in the log.
func TestContentHidesSecrets(t *testing.T) {
	const secret = "s3cr3t"
	seen := 0
	for _, file := range []protoreflect.FileDescriptor{pb.File_etcdserverpb_rpc_proto, v3lockpb.File_v3lockpb_v3lock_proto, v3electionpb.File_v3electionpb_v3election_proto} {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				seen++
				m := filled(methods.Get(j).Input(), secret, 4)
				text := contentOf(m)
				if strings.Contains(text, secret) {
					t.Errorf("%s: %s", m.ProtoReflect().Descriptor().FullName(), text)
				}
			}
		}
	}
	if seen < 40 {
		t.Errorf("only %d methods were seen", seen)
	}
	long := contentOf(&pb.PutRequest{Key: bytes.Repeat([]byte("k"), 1<<20)})
	if len(long) > contentBytesMax+10 {
		t.Errorf("a long key makes a line of %d bytes", len(long))
	}
}

// mayBeLogged are the text fields that hold no secret.
func mayBeLogged(field string) bool {
	switch field {
	case "key", "range_end", "keys", "name", "role", "user", "roles", "leader", "peerURLs", "version":
		return true
	}
	return false
}

// filled is a message whose text fields hold the secret, unless they may be
// logged.
func filled(d protoreflect.MessageDescriptor, secret string, depth int) proto.Message {
	m := dynamicpb.NewMessage(d)
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if f.IsMap() || depth == 0 {
			continue
		}
		var v protoreflect.Value
		text := secret
		if mayBeLogged(string(f.Name())) {
			text = "shown"
		}
		switch f.Kind() {
		case protoreflect.BytesKind:
			v = protoreflect.ValueOfBytes([]byte(text))
		case protoreflect.StringKind:
			v = protoreflect.ValueOfString(text)
		case protoreflect.MessageKind:
			v = protoreflect.ValueOfMessage(filled(f.Message(), secret, depth-1).ProtoReflect())
		default:
			continue
		}
		if f.IsList() {
			m.Mutable(f).List().Append(v)
		} else {
			m.Set(f, v)
		}
	}
	return m.Interface()
}

// If this fails, a secret on the command line is in the log of every start.
func TestSecretFlagsAreNotLogged(t *testing.T) {
	args := []string{"--name", "m", "--discovery-password=s3cr3t", "-discovery-user", "u:s3cr3t", "--discovery-password", "s3cr3t"}
	text := string(must[[]byte](t)(json.Marshal(withoutSecrets(args))))
	if strings.Contains(text, "s3cr3t") || !strings.Contains(text, `"--name","m"`) || args[4] != "u:s3cr3t" {
		t.Errorf("%s of %q", text, args)
	}
}
