package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/v3electionpb"
	"github.com/kvorum/kvorum/proto/v3lockpb"
)

// If this fails, a method that gRPC clients have cannot be called over JSON.
func TestEveryMethodHasAPath(t *testing.T) {
	found := map[string]bool{pb.KV_RangeStream_FullMethodName: true} // etcd's has none either
	for _, r := range routes() {
		found[r.method] = true
	}
	services := []grpc.ServiceDesc{
		pb.KV_ServiceDesc, pb.Watch_ServiceDesc, pb.Lease_ServiceDesc, pb.Cluster_ServiceDesc, pb.Maintenance_ServiceDesc,
		pb.Auth_ServiceDesc, v3lockpb.Lock_ServiceDesc, v3electionpb.Election_ServiceDesc,
	}
	count := 0
	for _, s := range services {
		var names []string
		for _, m := range s.Methods {
			names = append(names, m.MethodName)
		}
		for _, m := range s.Streams {
			names = append(names, m.StreamName)
		}
		for _, name := range names {
			count++
			if method := "/" + s.ServiceName + "/" + name; !found[method] {
				t.Errorf("%s has no path", method)
			}
		}
	}
	if count != len(found) {
		t.Errorf("%d methods, %d with paths", count, len(found))
	}
}

// small are limits that no request of these tests meets.
var small = Limits{JSONBytesMax: 1000, MessageBytesMax: 500}

// failing is a server whose every call fails, and that shows the metadata.
type failing struct {
	code codes.Code
	got  metadata.MD
}

func (f *failing) Invoke(ctx context.Context, _ string, _, _ any, _ ...grpc.CallOption) error {
	f.got, _ = metadata.FromOutgoingContext(ctx)
	return status.Error(f.code, "no")
}

// NewStream gives a stream with one answer before the failure.
func (f *failing) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return &failingStream{ctx: ctx, err: status.Error(f.code, "no")}, nil
}

type failingStream struct {
	grpc.ClientStream
	ctx      context.Context
	err      error
	received int
}

func (s *failingStream) SendMsg(any) error            { return nil }
func (s *failingStream) CloseSend() error             { return nil }
func (s *failingStream) Header() (metadata.MD, error) { return nil, nil }
func (s *failingStream) RecvMsg(m any) error {
	if s.received++; s.received > 1 {
		return s.err
	}
	m.(*pb.SnapshotResponse).Version = "3.7.0"
	return nil
}

func post(g http.Handler, path string, body io.Reader, header http.Header) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, path, body)
	r.Header = header
	g.ServeHTTP(w, r)
	return w
}

// If this fails, a client over JSON takes one kind of failure for another, and
// tries again what it must not.
func TestHTTPStatusOfEachCode(t *testing.T) {
	for code, want := range map[codes.Code]int{
		codes.Canceled: 499, codes.Unknown: 500, codes.InvalidArgument: 400, codes.DeadlineExceeded: 504, codes.NotFound: 404,
		codes.AlreadyExists: 409, codes.PermissionDenied: 403, codes.Unauthenticated: 401, codes.ResourceExhausted: 429,
		codes.FailedPrecondition: 400, codes.Aborted: 409, codes.OutOfRange: 400, codes.Unimplemented: 501, codes.Internal: 500,
		codes.Unavailable: 503, codes.DataLoss: 500,
	} {
		w := post(New(&failing{code: code}, small, nil), "/v3/kv/put", strings.NewReader("{}"), http.Header{})
		if w.Code != want {
			t.Errorf("%v: %d, want %d", code, w.Code, want)
		}
	}
}

// If this fails, a client takes a stream that broke for one that ended.
func TestStreamTellsOfItsFailure(t *testing.T) {
	w := post(New(&failing{code: codes.Unavailable}, small, nil), "/v3/maintenance/snapshot", strings.NewReader(""), http.Header{})
	want := `{"result":{"version":"3.7.0"}}` + "\n" + `{"error":{"code":14,"message":"no"}}` + "\n"
	if w.Code != http.StatusOK || w.Body.String() != want {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// If this fails, logins over JSON are lost, or a client without a certificate
// is taken for the gateway's.
func TestHeadersBecomeMetadata(t *testing.T) {
	server := &failing{code: codes.Unavailable}
	post(New(server, small, nil), "/v3/kv/put", nil, http.Header{
		"Authorization": {"secret"}, "Grpc-Metadata-Hasleader": {"true"}, "Grpc-Metadata-": {"x"}, "X-Other": {"y"},
		"Grpc-Metadata-Grpcgateway-Accept": {},
	})
	for key, want := range map[string]string{"authorization": "secret", "hasleader": "true", "grpcgateway-accept": "*/*"} {
		if got := server.got.Get(key); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %v, want %s", key, got, want)
		}
	}
	if len(server.got) != 3 {
		t.Errorf("more than that: %v", server.got)
	}
}

// If this fails, one message of a long stream uses up what the next may take,
// or a message may be of any size.
func TestEachMessageHasItsOwnBound(t *testing.T) {
	const message = `{"key":"YWFhYWFhYWFhYWFhYWFhYWFhYWFh"} `
	requests := newRequests(strings.NewReader(strings.Repeat(message, 100)+`"`+strings.Repeat("x", 5000)+`"`), Limits{JSONBytesMax: 2000})
	for i := range 100 {
		var r pb.PutRequest
		if err := requests.next(&r); err != nil || len(r.Key) != 21 {
			t.Fatalf("message %d: %v, %v", i, err, &r)
		}
	}
	if err := requests.next(&pb.PutRequest{}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v, want ResourceExhausted", err)
	}
}

// FuzzRequests: whatever a client sends, reading it ends, and what is taken for
// a message can be written and read again as the same.
func FuzzRequests(f *testing.F) {
	f.Add(`{"compare":[{"key":"YQ==","version":"1"}],"success":[{"requestPut":{"key":"Yg"}}]} {}`)
	f.Add(`{"compare":null}`)
	f.Fuzz(func(t *testing.T, body string) {
		requests := newRequests(strings.NewReader(body), Limits{JSONBytesMax: 1 << 16})
		for {
			var r, again pb.TxnRequest
			err := requests.next(&r)
			if errors.Is(err, io.EOF) || status.Code(err) != codes.OK {
				return
			}
			text, err := encode("", &r)
			if err != nil {
				t.Fatal(err)
			}
			if err := newRequests(strings.NewReader(string(text)), Limits{JSONBytesMax: 1 << 20}).next(&again); err != nil || !proto.Equal(&r, &again) {
				t.Fatalf("%s: %v, read again as %v", text, err, &again)
			}
		}
	})
}
