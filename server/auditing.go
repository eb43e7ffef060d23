package server

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/v3electionpb"
	"github.com/kvorum/kvorum/server/api"
	"github.com/kvorum/kvorum/server/audit"
	"github.com/kvorum/kvorum/server/logs"
)

// The values of Audit.Level and Audit.WhenFull.
const (
	AuditMetadata = "metadata" // every request
	AuditWrite    = "write"    // what changes something or copies everything, logins, and what was refused
	AuditWait     = "wait"
	AuditDrop     = "drop"
)

// Audit is what the audit log is told from outside.
type Audit struct {
	To       string // stdout, stderr or a file; "" is off
	Level    string // AuditMetadata or AuditWrite
	WhenFull string // AuditWait or AuditDrop
	Rotation string // of the file, as JSON; "" is not rotated
}

func auditFlags(fs *flag.FlagSet, c *Config) {
	a := &c.Audit
	fs.StringVar(&a.To, "audit-log", "", "file for one line about each request, or stdout or stderr (default none)")
	fs.Var(choiceValue{&a.Level, []string{AuditMetadata, AuditWrite}}, "audit-level", "metadata for every request, or write for changes, logins and what was refused")
	fs.Var(choiceValue{&a.WhenFull, []string{AuditWait, AuditDrop}}, "audit-when-full", "wait: a request waits while the queue of lines is full; drop: its line is lost and counted")
	fs.StringVar(&a.Rotation, "audit-rotation-config-json", "", "when to rotate the file, as --log-rotation-config-json (default never)")
}

func (c *Config) validateAudit() error {
	_, err := c.auditRotation()
	return err
}

func (c *Config) auditRotation() (*logs.Rotation, error) {
	a := c.Audit
	switch {
	case a.Rotation == "":
		return nil, nil
	case a.To == "" || a.To == logs.Stdout || a.To == logs.Stderr:
		return nil, fmt.Errorf("--audit-rotation-config-json needs a file as --audit-log, not %q", a.To)
	}
	r, err := logs.ParseRotation(a.Rotation)
	if err != nil {
		return nil, fmt.Errorf("--audit-rotation-config-json: %w", err)
	}
	return r, nil
}

// openAudit opens the audit log, if there is to be one.
func (s *Server) openAudit() error {
	var out io.Writer
	switch to := s.cfg.Audit.To; to {
	case "":
		return nil
	case logs.Stdout:
		out = os.Stdout
	case logs.Stderr:
		out = os.Stderr
	default:
		rotation, err := s.cfg.auditRotation()
		if err != nil {
			return err
		}
		if out, err = logs.OpenFile(to, rotation); err != nil {
			return fmt.Errorf("--audit-log: %w", err)
		}
	}
	s.audit = &auditor{
		Log:        audit.New(audit.Options{Out: out, DropWhenFull: s.cfg.Audit.WhenFull == AuditDrop, Log: s.log}),
		onlyWrites: s.cfg.Audit.Level == AuditWrite,
	}
	s.metrics.Counter("kvorum_audit_dropped_total", "Audit lines that found the queue full.", func() float64 { return float64(s.audit.Dropped()) })
	s.metrics.Counter("kvorum_audit_lost_total", "Audit lines that could not be written.", func() float64 { return float64(s.audit.Lost()) })
	return nil
}

// startAudit starts the writer of the audit log; stop ends it when no request
// runs any more, and returns when every line is written.
func (s *Server) startAudit() (stop func()) {
	if s.audit == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.audit.Run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

// auditor is the interceptor that makes the lines of the audit log.
type auditor struct {
	*audit.Log
	onlyWrites bool
}

// unary makes the line of a unary request.
func (a *auditor) unary(ctx context.Context, r any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	began, note := time.Now(), api.NoteCaller(ctx)
	response, err := next(note, r)
	code := status.Code(err)
	if a.onlyWrites && !worthAudit(info.FullMethod, r, code) {
		return response, err
	}
	line := audit.Record{
		Time: began, Took: time.Since(began), User: note.User(), Operation: operation(info.FullMethod),
		Code: code.String(), BytesIn: wireSize(r),
	}
	describeClient(ctx, &line)
	describeRequest(r, &line)
	if err != nil {
		line.Error = status.Convert(err).Message()
	} else {
		line.BytesOut = wireSize(response)
		describeAnswer(response, &line)
	}
	a.Write(&line)
	return response, err
}

// operation is KV/Put of /etcdserverpb.KV/Put.
func operation(method string) string { return method[strings.LastIndexByte(method, '.')+1:] }

// wireSize is the size of a message in bytes.
func wireSize(m any) int {
	switch m := m.(type) {
	case *pb.PutRequest: // the most frequent are looked for first
		return m.SizeVT()
	case *pb.PutResponse:
		return m.SizeVT()
	case interface{ SizeVT() int }:
		return m.SizeVT()
	case proto.Message:
		return proto.Size(m)
	}
	return 0
}

// describeClient says where a request has come from. The gateway tells it of
// its own clients; nobody else can come that way.
func describeClient(ctx context.Context, line *audit.Record) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return
	}
	switch addr := p.Addr.(type) {
	case *net.TCPAddr:
		line.From, line.CommonName = addr.AddrPort(), api.PeerName(p)
	default:
		line.Remote, line.CommonName = addr.String(), api.PeerName(p)
		if addr.Network() == gatewayNetwork {
			line.Remote, line.CommonName = fromGateway(ctx, remoteKey), fromGateway(ctx, commonNameKey)
		}
	}
}

// The gateway passes on who its client is in the metadata of its own requests.
const (
	gatewayNetwork = "bufconn"
	remoteKey      = "kvorum-remote"
	commonNameKey  = "kvorum-common-name"
)

// tellGateway makes the gateway pass on the client of an HTTP request.
func tellGateway(r *http.Request) {
	r.Header.Set("Grpc-Metadata-"+remoteKey, url.QueryEscape(r.RemoteAddr))
	r.Header.Set("Grpc-Metadata-"+commonNameKey, url.QueryEscape(api.CertificateName(r.TLS)))
}

func fromGateway(ctx context.Context, key string) string {
	values := metadata.ValueFromIncomingContext(ctx, key)
	if len(values) == 0 {
		return ""
	}
	text, err := url.QueryUnescape(values[0])
	if err != nil {
		return values[0]
	}
	return text
}

// describeRequest names what a request is about.
func describeRequest(r any, line *audit.Record) {
	switch r := r.(type) {
	case *pb.PutRequest:
		line.Key, line.Lease = r.Key, r.Lease
	case *pb.RangeRequest:
		line.Key, line.End = r.Key, r.RangeEnd
	case *pb.DeleteRangeRequest:
		line.Key, line.End = r.Key, r.RangeEnd
	case *pb.TxnRequest:
		line.Txn = r
	case *pb.LeaseGrantRequest:
		line.Lease = r.ID
	case *pb.LeaseRevokeRequest:
		line.Lease = r.ID
	case *pb.LeaseTimeToLiveRequest:
		line.Lease = r.ID
	case *pb.LeaseKeepAliveRequest:
		line.Lease = r.ID
	case proto.Message:
		line.Detail = contentOf(r)
	}
}

// describeAnswer adds what only the answer knows.
func describeAnswer(response any, line *audit.Record) {
	switch r := response.(type) {
	case *pb.PutResponse:
		line.Revision = r.Header.GetRevision()
	case *pb.LeaseGrantResponse:
		line.Revision, line.Lease = r.Header.GetRevision(), r.ID
	case interface{ GetHeader() *pb.ResponseHeader }:
		line.Revision = r.GetHeader().GetRevision()
	}
}

// worthAudit tells what AuditWrite has lines of.
func worthAudit(method string, r any, code codes.Code) bool {
	if code == codes.PermissionDenied || code == codes.Unauthenticated {
		return true
	}
	switch r := r.(type) {
	case *pb.RangeRequest, *pb.WatchRequest, *pb.LeaseTimeToLiveRequest, *pb.LeaseLeasesRequest, *pb.LeaseKeepAliveRequest,
		*pb.MemberListRequest, *pb.StatusRequest, *pb.HashRequest, *pb.HashKVRequest,
		*pb.AuthStatusRequest, *pb.AuthUserGetRequest, *pb.AuthUserListRequest, *pb.AuthRoleGetRequest, *pb.AuthRoleListRequest,
		*v3electionpb.LeaderRequest:
		return false
	case *pb.TxnRequest:
		return !api.OnlyReads(r)
	case *pb.AlarmRequest:
		return r.Action != pb.AlarmRequest_GET
	}
	return !strings.HasPrefix(method, "/grpc.")
}

// stream makes the lines of a stream: one when it ends, and before that one for
// each watcher that its client asks for.
func (a *auditor) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	s := &auditedStream{ServerStream: stream, auditor: a, method: info.FullMethod, began: time.Now(), note: api.NoteCaller(stream.Context())}
	err := next(srv, s)
	s.end(err)
	return err
}

// auditedStream counts what goes through a stream. One goroutine receives and
// one sends.
type auditedStream struct {
	grpc.ServerStream
	*auditor
	method string
	began  time.Time
	note   *api.CallerNote

	mu      sync.Mutex
	first   any // request
	line    audit.Record
	creates []watchAsked // not yet answered, in order
}

// watchAsked is a client's wish for a watcher.
type watchAsked struct {
	at       time.Time
	key, end []byte
	bytes    int
}

// Context is grpc.ServerStream's.
func (s *auditedStream) Context() context.Context { return s.note }

// RecvMsg is grpc.ServerStream's.
func (s *auditedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	size := wireSize(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line.MessagesIn++
	s.line.BytesIn += size
	if s.first == nil {
		s.first = m
	}
	if w, ok := m.(*pb.WatchRequest); ok && w.GetCreateRequest() != nil {
		r := w.GetCreateRequest()
		s.creates = append(s.creates, watchAsked{time.Now(), r.Key, r.RangeEnd, size})
	}
	return nil
}

// SendMsg is grpc.ServerStream's.
func (s *auditedStream) SendMsg(m any) error {
	size := wireSize(m)
	if w, ok := m.(*pb.WatchResponse); ok && w.Created {
		s.created(w, size)
	}
	err := s.ServerStream.SendMsg(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line.MessagesOut++
	s.line.BytesOut += size
	return err
}

// created makes the line of a watcher; answers come in the order of the wishes.
func (s *auditedStream) created(w *pb.WatchResponse, size int) {
	s.mu.Lock()
	if len(s.creates) == 0 {
		s.mu.Unlock()
		return
	}
	asked := s.creates[0]
	s.creates = s.creates[1:]
	s.mu.Unlock()
	if s.onlyWrites && !w.Canceled {
		return
	}
	line := audit.Record{
		Time: asked.at, Took: time.Since(asked.at), User: s.note.User(), Operation: "Watch/Create", Key: asked.key, End: asked.end,
		OfWatch: !w.Canceled, WatchID: w.WatchId, Revision: w.GetHeader().GetRevision(), Code: codes.OK.String(), BytesIn: asked.bytes, BytesOut: size,
	}
	if w.Canceled {
		line.Code, line.Error = codes.Canceled.String(), w.CancelReason
	}
	describeClient(s.note, &line)
	s.Write(&line)
}

// end makes the line of the whole stream.
func (s *auditedStream) end(err error) {
	s.mu.Lock()
	line, first := s.line, s.first
	s.mu.Unlock()
	code := status.Code(err)
	if s.onlyWrites && !worthAudit(s.method, first, code) {
		return
	}
	line.Time, line.Took, line.User, line.Operation, line.Code = s.began, time.Since(s.began), s.note.User(), operation(s.method), code.String()
	if _, ofMany := first.(*pb.WatchRequest); !ofMany {
		describeRequest(first, &line)
	}
	if err != nil {
		line.Error = status.Convert(err).Message()
	}
	describeClient(s.note, &line)
	s.Write(&line)
}
