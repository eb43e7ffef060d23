package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/proto/authpb"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/api/token"
	"github.com/kvorum/kvorum/server/state"
)

// newAuthoriser is an authoriser over a machine of its own; with auth on, root
// and alice are users, and alice may read the key a.
func newAuthoriser(t testing.TB, on bool) *authoriser {
	t.Helper()
	store, err := mvcc.Open(t.TempDir()+"/db", mvcc.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	machine, err := state.New(store, state.Options{MinLeaseTTL: 1})
	if err != nil {
		t.Fatal(err)
	}
	commands := []*pb.InternalRaftRequest{
		{AuthUserAdd: &pb.AuthUserAddRequest{Name: "root"}},
		{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}},
		{AuthUserAdd: &pb.AuthUserAddRequest{Name: "alice"}},
		{AuthRoleAdd: &pb.AuthRoleAddRequest{Name: "r"}},
		{AuthRoleGrantPermission: &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: &authpb.Permission{Key: []byte("a")}}},
		{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: "alice", Role: "r"}},
		{AuthEnable: &pb.AuthEnableRequest{}},
	}
	if !on {
		commands = commands[:len(commands)-1]
	}
	for i, r := range commands {
		r.Header = &pb.RequestHeader{ID: uint64(i + 1)}
		data, err := r.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		if result := machine.Apply(mvcc.Applied{Index: uint64(i + 1), Term: 1}, data); result.Err != nil {
			t.Fatal(result.Err)
		}
	}
	store.Publish()
	tokens, err := token.New(token.Config{Spec: "simple"})
	if err != nil {
		t.Fatal(err)
	}
	return &authoriser{
		Auth: Auth{Tokens: tokens}, machine: machine, errors: NewErrors(), rules: rules(128),
		caughtUp: func(context.Context) error { return nil }, applied: func() uint64 { return 1 },
	}
}

// If this fails, a new RPC can be called by anybody because nobody thought of a
// rule for it.
func TestEveryRPCHasARule(t *testing.T) {
	a := newAuthoriser(t, true)
	g := grpc.NewServer()
	(&Services{auth: a}).Register(g)
	healthpb.RegisterHealthServer(g, health.NewServer())
	reflection.Register(g)
	served := map[string]bool{}
	for service, info := range g.GetServiceInfo() {
		for _, m := range info.Methods {
			served["/"+service+"/"+m.Name] = true
		}
	}
	for method := range served {
		if r := a.rules[method]; !r.open && !r.anybody && r.check == nil {
			t.Errorf("%s has no rule in rules.go", method)
		}
	}
	for method := range a.rules {
		if !served[method] {
			t.Errorf("the rule of %s is for nothing that is served", method)
		}
	}
}

// If this fails, an RPC without a rule is open to all, or one can be called with
// the request of another.
func TestNoRuleMeansNo(t *testing.T) {
	a := newAuthoriser(t, true)
	assign := state.TokenChange{Kind: state.TokenAssigned, User: "root", Token: "t"}
	a.Tokens.Follow(assign)
	root := metadata.NewIncomingContext(t.Context(), metadata.Pairs("token", "t"))
	if _, err := a.admit(root, "/etcdserverpb.KV/Range", &pb.RangeRequest{Key: []byte("a")}); err != nil {
		t.Errorf("root may not read: %v", err)
	}
	for method, r := range map[string]any{"/new.Service/Method": &pb.RangeRequest{Key: []byte("a")}, "/etcdserverpb.KV/Range": &pb.PutRequest{Key: []byte("a")}} {
		if _, err := a.admit(root, method, r); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s with a %T: %v, want permission denied", method, r, err)
		}
	}
}

// If this fails, clients that log in by other means than the token header, such
// as through the gateway or by certificate, are nobody, or are someone else.
func TestCredentials(t *testing.T) {
	a := newAuthoriser(t, true)
	a.Tokens.Follow(state.TokenChange{Kind: state.TokenAssigned, User: "alice", Token: "t"})
	certificate := &peer.Peer{AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{
		VerifiedChains: [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: "root"}}}},
	}}}
	for _, c := range []struct {
		what  string
		names bool
		md    metadata.MD
		want  string
	}{
		{"none", false, nil, ""},
		{"token", false, metadata.Pairs("token", "t"), "alice"},
		{"bearer token", false, metadata.Pairs("token", "Bearer t"), "alice"},
		{"authorization", false, metadata.Pairs("authorization", "t"), "alice"},
		{"bearer authorization", false, metadata.Pairs("authorization", "Bearer t"), "alice"},
		{"token before authorization", false, metadata.Pairs("authorization", "bad", "token", "t"), "alice"},
		{"certificate that does not count", false, nil, ""},
		{"certificate", true, nil, "root"},
		{"token before certificate", true, metadata.Pairs("token", "t"), "alice"},
		{"the gateway's certificate", true, metadata.Pairs("grpcgateway-accept", "*/*"), ""},
	} {
		a.CommonNames = c.names
		ctx := metadata.NewIncomingContext(peer.NewContext(t.Context(), certificate), c.md)
		if got, err := a.caller(ctx); err != nil || got.User != c.want || (c.want != "") != (got.AuthRevision != 0) {
			t.Errorf("%s: %+v, %v; want %q", c.what, got, err, c.want)
		}
	}
}

// If this fails, a token is refused by the member that has not yet heard of the
// login, or a made-up token keeps it waiting.
func TestTokenOfAnotherMember(t *testing.T) {
	a := newAuthoriser(t, true)
	waits := 0
	a.caughtUp = func(context.Context) error {
		waits++
		a.Tokens.Follow(state.TokenChange{Kind: state.TokenAssigned, User: "alice", Token: "wUhevOASUpPAsYMD.9"})
		return nil
	}
	for _, c := range []struct {
		text  string
		code  codes.Code
		waits int
	}{
		{"wUhevOASUpPAsYMD.1", codes.Unauthenticated, 0}, // applied here, so unknown
		{"wUhevOASUpPAsYMX.9", codes.Unauthenticated, 1},
		{"wUhevOASUpPAsYMD.9", codes.OK, 1},
		{"garbage", codes.Unauthenticated, 1},
	} {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("token", c.text))
		_, err := a.caller(ctx)
		if code := status.Code(a.errors.Status(err)); code != c.code || waits != c.waits {
			t.Errorf("%s: %v after %d waits, want %s after %d", c.text, err, waits, c.code, c.waits)
		}
	}
}

// If this fails, what a user was not allowed to see any more, or auth was
// switched on to hide, is seen by a read that began before.
func TestReadsAreCheckedAfterwards(t *testing.T) {
	for _, on := range []bool{false, true} {
		a := newAuthoriser(t, on)
		a.Tokens.Follow(state.TokenChange{Kind: state.TokenAssigned, User: "alice", Token: "t"})
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("token", "t"))
		change := &pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: 99}}
		key := "b" // that alice may not read, if auth is on
		if on {
			key = "a"
			change.Header.Username = "root"
			change.AuthUserRevokeRole = &pb.AuthUserRevokeRoleRequest{Name: "alice", Role: "r"}
		} else {
			change.AuthEnable = &pb.AuthEnableRequest{}
		}
		data, err := change.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		read := func(context.Context, any) (any, error) {
			r := a.machine.Apply(mvcc.Applied{Index: 99, Term: 1}, data)
			return "secret", r.Err
		}
		_, err = a.unary(ctx, pb.KV_Range_FullMethodName, &pb.RangeRequest{Key: []byte(key)}, read)
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("auth on before: %v: error %v, want permission denied", on, err)
		}
	}
}

// With auth off the authoriser must cost nothing: the test fails if it
// allocates.
func TestAuthOffCostsNothing(t *testing.T) {
	a := newAuthoriser(t, false)
	ctx, r := t.Context(), any(&pb.PutRequest{Key: []byte("a")})
	next := func(context.Context, any) (any, error) { return r, nil }
	if n := testing.AllocsPerRun(100, func() { _, _ = a.unary(ctx, pb.KV_Put_FullMethodName, r, next) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAuthorise(b *testing.B) {
	for name, on := range map[string]bool{"off": false, "on": true} {
		b.Run(name, func(b *testing.B) {
			a := newAuthoriser(b, on)
			a.Tokens.Follow(state.TokenChange{Kind: state.TokenAssigned, User: "alice", Token: "t"})
			ctx := metadata.NewIncomingContext(b.Context(), metadata.Pairs("token", "t"))
			r := any(&pb.RangeRequest{Key: []byte("a")})
			next := func(context.Context, any) (any, error) { return r, nil }
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.unary(ctx, pb.KV_Range_FullMethodName, r, next); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
