package api

import (
	"cmp"
	"context"
	"math"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/api/token"
	"github.com/kvorum/kvorum/server/state"
)

// Auth is how a member knows who asks.
type Auth struct {
	// Tokens is the kind of tokens that logins give out.
	Tokens token.Tokens
	// BcryptCost is the cost of hashing a password; 0 is the default.
	BcryptCost int
	// CommonNames: a client without a token is the user that its verified
	// certificate names.
	CommonNames bool
}

// authoriser is the one place that decides who may do what: every request of
// every service passes it before its service runs, and what a read has found
// passes it again, as permissions may have gone meanwhile. A write is checked a
// third time where it counts, by the machine when it is applied.
//
// With auth off all it costs is one atomic load.
type authoriser struct {
	Auth
	machine *state.Machine
	errors  *Errors
	rules   map[string]rule
	// caughtUp waits until this member knows every token that was given out.
	caughtUp func(context.Context) error
	// applied is the index up to which this member knows all tokens.
	applied func() uint64
}

// callerKey is where an admitted request's context has its state.Caller.
type callerKey struct{}

// CallerOf is who makes an admitted request; the zero Caller when auth is off
// and for what the member does by itself.
func CallerOf(ctx context.Context) state.Caller {
	c, _ := ctx.Value(callerKey{}).(state.Caller)
	return c
}

// CallerNote is a request's context in which its user is written down for whoever
// watches the request from outside the authoriser: the context that names the
// caller goes only inwards. User may be called from any goroutine.
type CallerNote struct {
	context.Context
	user atomic.Pointer[string]
}

// noteKey is where a context has its CallerNote.
type noteKey struct{}

// NoteCaller makes the context of a request whose user is to be noted.
func NoteCaller(ctx context.Context) *CallerNote { return &CallerNote{Context: ctx} }

// Value is context.Context's.
func (n *CallerNote) Value(key any) any {
	if _, ok := key.(noteKey); ok {
		return n
	}
	return n.Context.Value(key)
}

// User is who has made the request; "" while that is not known.
func (n *CallerNote) User() string {
	if user := n.user.Load(); user != nil {
		return *user
	}
	return ""
}

func noteCaller(ctx context.Context, c state.Caller) {
	if note, ok := ctx.Value(noteKey{}).(*CallerNote); ok {
		note.user.Store(&c.User)
	}
}

// WithCaller is a context of a request that was admitted elsewhere in the name
// of c.
func WithCaller(ctx context.Context, c state.Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// anyRevision is the auth revision of a caller whose identity has been proven
// and who is only checked again.
const anyRevision = math.MaxUint64

// unary runs next if the caller may make the request, and gives its answer if
// the caller still may.
func (a *authoriser) unary(ctx context.Context, method string, r any, next grpc.UnaryHandler) (any, error) {
	if !a.machine.AuthEnabled() {
		response, err := next(ctx, r)
		if err != nil {
			return nil, err
		}
		// If it was switched on meanwhile, what was read may be of after that.
		return response, a.recheck(ctx, method, r)
	}
	ctx, err := a.admit(ctx, method, r)
	if err != nil {
		return nil, err
	}
	response, err := next(ctx, r)
	if err != nil {
		return nil, err
	}
	return response, a.recheck(ctx, method, r)
}

// admit checks the request and gives the context that names the caller. The
// error is a status.
func (a *authoriser) admit(ctx context.Context, method string, r any) (context.Context, error) {
	rule := a.rules[method]
	if rule.open {
		return ctx, nil
	}
	if rule.validate != nil {
		// A request that is wrong is told so, whoever makes it.
		if err := rule.validate(r); err != nil {
			return nil, a.refusal(rule, err)
		}
	}
	caller, err := a.caller(ctx)
	if err == nil {
		noteCaller(ctx, caller)
		if err = rule.permit(a.machine, caller, r); err != nil {
			// Of what writes keys, alarms come first, as they do when a command is applied.
			err = cmp.Or(a.machine.RefusedByAlarm(commandOf(r)), err)
		}
	}
	if err != nil {
		return nil, a.refusal(rule, err)
	}
	return context.WithValue(ctx, callerKey{}, caller), nil
}

// commandOf is what a write of keys would be proposed as: etcd checks its permissions only when it is applied, behind the
// alarms. It is an empty command for all others, whose permissions are checked first.
func commandOf(r any) *pb.InternalRaftRequest {
	switch r := r.(type) {
	case *pb.PutRequest:
		return &pb.InternalRaftRequest{Put: r}
	case *pb.DeleteRangeRequest:
		return &pb.InternalRaftRequest{DeleteRange: r}
	case *pb.TxnRequest:
		if !onlyReads(r) {
			return &pb.InternalRaftRequest{Txn: r}
		}
	}
	return &pb.InternalRaftRequest{}
}

// recheck checks a read after it has read: the state that is checked now is no
// older than what was read.
func (a *authoriser) recheck(ctx context.Context, method string, r any) error {
	if !a.machine.AuthEnabled() {
		return nil
	}
	rule := a.rules[method]
	if !rule.reads || rule.wrote != nil && rule.wrote(r) {
		return nil
	}
	caller, err := a.caller(ctx)
	if err == nil {
		caller.AuthRevision = anyRevision
		err = rule.permit(a.machine, caller, r)
	}
	return a.refusal(rule, err)
}

// mayRead checks that the caller of an admitted request may read all of the keys.
func (a *authoriser) mayRead(ctx context.Context, keys [][]byte) error {
	if !a.machine.AuthEnabled() {
		return nil
	}
	c := CallerOf(ctx)
	c.AuthRevision = anyRevision
	for _, key := range keys {
		if err := a.machine.CheckRead(c, key, nil); err != nil {
			return err
		}
	}
	return nil
}

// refusal is the status of an error.
func (a *authoriser) refusal(r rule, err error) error {
	err = a.errors.Status(err)
	if r.inner {
		return clientError(err)
	}
	return err
}

// clientError makes the status that etcd's lock and election services give:
// they pass on what a client inside the server was told, as text only.
func clientError(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok || s.Code() == codes.Canceled || s.Code() == codes.DeadlineExceeded {
		return err
	}
	return status.Error(codes.Unknown, s.Message())
}

// caller is who makes a request: whom an outer request of the same client has
// proven to be, or whom the credentials stand for. Without credentials it is
// the zero Caller.
func (a *authoriser) caller(ctx context.Context) (state.Caller, error) {
	if c := CallerOf(ctx); c.User != "" {
		c.AuthRevision = a.machine.AuthStatus().Revision
		return c, nil
	}
	text := tokenOf(ctx)
	if text == "" {
		if name := a.commonName(ctx); name != "" {
			return state.Caller{User: name, AuthRevision: a.machine.AuthStatus().Revision}, nil
		}
		return state.Caller{}, nil
	}
	// Read before the token: a token that ends just now must not get the revision
	// of after its end.
	revision := a.machine.AuthStatus().Revision
	b, err := a.Tokens.Bearer(text)
	if err != nil && a.Tokens.AssignedAt(text) > a.applied() {
		if err := a.caughtUp(ctx); err != nil {
			return state.Caller{}, err
		}
		b, err = a.Tokens.Bearer(text)
	}
	if err != nil {
		return state.Caller{}, err
	}
	if b.Revision == 0 {
		b.Revision = revision
	}
	return state.Caller{User: b.User, AuthRevision: b.Revision}, nil
}

// tokenOf is the token in a request's metadata, "" if there is none.
func tokenOf(ctx context.Context) string {
	for _, key := range []string{"token", "authorization"} {
		if values := metadata.ValueFromIncomingContext(ctx, key); len(values) > 0 {
			return strings.TrimPrefix(values[0], "Bearer ")
		}
	}
	return ""
}

// commonName is the name in the client's verified certificate, if names count.
// The gateway's own certificate is nobody's.
func (a *authoriser) commonName(ctx context.Context) string {
	if !a.CommonNames || len(metadata.ValueFromIncomingContext(ctx, "grpcgateway-accept")) > 0 {
		return ""
	}
	return CommonName(ctx)
}

// stream is the stream as its service sees it: every message that comes in is
// admitted, and every one that goes out is checked again.
func (a *authoriser) stream(method string, s grpc.ServerStream) grpc.ServerStream {
	if a.rules[method].open || a.rules[method].byService {
		return s
	}
	return &authStream{ServerStream: s, auth: a, method: method, ctx: s.Context()}
}

// authStream is a stream under the authoriser. Who is at its other end is found
// out once, with the first message. One goroutine receives, and it is the one
// that sends, or sends only after the first message.
type authStream struct {
	grpc.ServerStream
	auth    *authoriser
	method  string
	ctx     context.Context // names the caller after the first message
	request any             // the last message
}

func (s *authStream) Context() context.Context { return s.ctx }

func (s *authStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	s.request = m
	if !s.auth.machine.AuthEnabled() {
		return nil
	}
	ctx, err := s.auth.admit(s.ctx, s.method, m)
	if err == nil {
		s.ctx = ctx
	}
	return err
}

func (s *authStream) SendMsg(m any) error {
	if err := s.auth.recheck(s.ctx, s.method, s.request); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}
