package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/server/state"
)

// If this fails, etcd's clients do not recognise an error and retry what they
// must not, or give up what they should retry.
func TestErrorsOnTheWire(t *testing.T) {
	e := NewErrors()
	for _, c := range []struct {
		err  error
		code codes.Code
		text string
	}{
		{mvcc.ErrCompacted, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted"},
		{mvcc.ErrFutureRevision, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"},
		{mvcc.ErrKeyNotFound, codes.InvalidArgument, "etcdserver: key not found"},
		{mvcc.ErrLeaseNotFound, codes.NotFound, "etcdserver: requested lease not found"},
		{state.ErrLeaseNotFound, codes.NotFound, "etcdserver: requested lease not found"},
		{state.ErrNoSpace, codes.ResourceExhausted, "etcdserver: mvcc: database space exceeded"},
		{state.ErrCorrupt, codes.DataLoss, "etcdserver: corrupt cluster"},
		{state.ErrMemberRemoved, codes.NotFound, "etcdserver: member not found"},
		{state.ErrTooManyLearners, codes.FailedPrecondition, "etcdserver: too many learner members in cluster"},
		{ErrKeyEmpty, codes.InvalidArgument, "etcdserver: key is not provided"},
		{ErrRequestTooLarge, codes.InvalidArgument, "etcdserver: request is too large"},
		{ErrTooManyRequests, codes.Unknown, "etcdserver: too many requests"},
		{ErrNotEnoughStarted, codes.Unknown, "etcdserver: re-configuration failed due to not enough started members"},
		{ErrTimeoutTransfer, codes.Unknown, "etcdserver: request timed out, leader transfer took too long"},
		{ErrTimeout, codes.Unavailable, "etcdserver: request timed out"},
		{ErrTimeoutLeaderFailure, codes.Unavailable, "etcdserver: request timed out, possibly due to previous leader failure"},
		{ErrCanceled, codes.Canceled, "etcdserver: request canceled"},
		{ErrLearnerRPC, codes.FailedPrecondition, "etcdserver: rpc not supported for learner"},
		{raft.ErrLeaderChanged, codes.Unavailable, "etcdserver: leader changed"},
		{raft.ErrStopped, codes.Unavailable, "etcdserver: server stopped"},
		{context.DeadlineExceeded, codes.DeadlineExceeded, "context deadline exceeded"},
		{fmt.Errorf("step: %w", ErrNoLeader), codes.Unavailable, "etcdserver: no leader"},
		{errors.New("odd"), codes.Unknown, "odd"},
		{status.Error(codes.Aborted, "as it is"), codes.Aborted, "as it is"},
	} {
		got := status.Convert(e.Status(c.err))
		if got.Code() != c.code || got.Message() != c.text {
			t.Errorf("%v becomes %s %q, want %s %q", c.err, got.Code(), got.Message(), c.code, c.text)
		}
	}
	if e.Status(nil) != nil {
		t.Error("no error becomes one")
	}
}

// If this fails, two errors mean the same to the table and one of them hides
// the other.
func TestErrorTableHasNoDoubles(t *testing.T) {
	rows := table()
	for i, a := range rows {
		for _, b := range rows[:i] {
			if errors.Is(a.err, b.err) {
				t.Errorf("%v stands behind %v and is never reached", a.err, b.err)
			}
		}
	}
}

// If this fails, messages are not what protobuf says they are.
func TestCodecRoundTrip(t *testing.T) {
	in := &pb.PutRequest{Key: []byte("k"), Value: bytes.Repeat([]byte("v"), 5000), Lease: -3}
	data, err := Codec{}.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	want, err := proto.Marshal(in)
	if err != nil || !bytes.Equal(data.Materialize(), want) {
		t.Fatalf("encoded differently from protobuf (%v)", err)
	}
	// Cut in two, as the network may deliver it.
	parts := mem.BufferSlice{mem.SliceBuffer(want[:17]), mem.SliceBuffer(want[17:])}
	var out pb.PutRequest
	if err := (Codec{}).Unmarshal(parts, &out); err != nil || !proto.Equal(in, &out) {
		t.Errorf("decoded %v, %v", &out, err)
	}
	clear(want)
	if !proto.Equal(in, &out) {
		t.Error("what was decoded changes with the bytes it came from")
	}
	if err := (Codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer{0xff}}, &out); err == nil {
		t.Error("broken bytes decode")
	}
	if _, err := (Codec{}).Marshal("text"); err == nil {
		t.Error("a string is no message")
	}
}

// If this fails, clients read other events than those that happened.
func TestEventsFrame(t *testing.T) {
	store, err := mvcc.Open(t.TempDir()+"/db", mvcc.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	stream := store.Watch(mvcc.WatchStreamOptions{})
	defer stream.Close()
	if _, _, err := stream.Add(mvcc.WatchSpec{ID: 300, Key: []byte("a"), End: []byte("z"), PrevKV: true}); err != nil {
		t.Fatal(err)
	}
	w := store.Write(mvcc.Applied{Index: 1, Term: 1})
	for _, value := range []string{"1", "2"} {
		if _, err := w.Put(&pb.PutRequest{Key: []byte("k" + value), Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	store.Publish()
	b, err := stream.Next(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	header := &pb.ResponseHeader{ClusterId: 1 << 63, MemberId: 7, Revision: int64(b.Revision), RaftTerm: 2}
	frame := eventsFrame{events: b.Events}
	frame.begin(header, b.ID, true)
	frame.fragment = true
	var got pb.WatchResponse
	if err := proto.Unmarshal(frame.buffers().Materialize(), &got); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got.Header, header) || got.WatchId != 300 || !got.Fragment || len(got.Events) != 2 {
		t.Fatalf("decoded %v", &got)
	}
	for i, want := range []string{"1", "2"} {
		if e := got.Events[i]; string(e.Kv.Key) != "k"+want || string(e.Kv.Value) != want || e.Kv.ModRevision != 2 {
			t.Errorf("event %d: %v", i, e)
		}
	}
}
