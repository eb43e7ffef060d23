package server

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/server/state"
)

// unknownCount is what a line says of requests without keys to count.
const unknownCount = -1

// slowRequest logs a request that took too long, with etcd's fields. What
// clients store is not logged, only its size.
func (s *Server) slowRequest(ctx context.Context, method string, request, response any, took time.Duration, err error) {
	from, outcome, content := "", "ok", ""
	if p, ok := peer.FromContext(ctx); ok {
		from = p.Addr.String()
	}
	if err != nil {
		outcome, response = err.Error(), nil
	}
	if m, ok := request.(proto.Message); ok {
		content = contentOf(m)
	}
	requestCount, responseCount := counts(request, response)
	s.log.Warn("request stats", "start time", time.Now().Add(-took).UTC().Format(time.RFC3339Nano), "time spent", took,
		"remote", from, "response type", method, "request count", requestCount, "request size", sizeOf(request),
		"response count", responseCount, "response size", sizeOf(response), "request content", content,
		"expected-duration", s.cfg.SlowRequest, "outcome", outcome)
}

// counts are the keys that a request writes and that its answer has.
func counts(request, response any) (asked, answered int64) {
	switch request.(type) {
	case *pb.PutRequest:
		return 1, 0
	case *pb.RangeRequest:
		if r, ok := response.(interface{ GetCount() int64 }); ok {
			return 0, r.GetCount()
		}
		return 0, 0
	case *pb.DeleteRangeRequest:
		r, _ := response.(*pb.DeleteRangeResponse)
		return 0, r.GetDeleted()
	case *pb.TxnRequest:
		r, _ := response.(*pb.TxnResponse)
		var found int64
		for _, op := range r.GetResponses() {
			found += op.GetResponseRange().GetCount()
		}
		t := request.(*pb.TxnRequest)
		return int64(max(len(t.Success), len(t.Failure))), found
	}
	return unknownCount, unknownCount
}

// sizeOf is the bytes of a message on the wire; -1 when there is none.
func sizeOf(m any) int {
	switch m := m.(type) {
	case proto.Message:
		return proto.Size(m)
	case interface{ SizeVT() int }: // encoded already
		return m.SizeVT()
	}
	return unknownCount
}

// slowEntry logs a command that took too long to apply, and tells whether it did.
func (a *applier) slowEntry(took time.Duration, e raft.Entry, r *state.Result) bool {
	if !a.isSlow(took) {
		return false
	}
	a.slowApplies.Add(1)
	command, response := &pb.InternalRaftRequest{}, 0
	content := ""
	if e.Kind == raft.EntryNormal && proto.Unmarshal(e.Data, command) == nil {
		content = contentOf(command)
	}
	if m, ok := r.Response.(proto.Message); ok && r.Err == nil {
		response = proto.Size(m)
	}
	args := []any{
		"took", took, "expected-duration", a.cfg.SlowApply, "prefix", "", "request", content, "response", fmt.Sprintf("size:%d", response), "index", uint64(e.Index),
	}
	if r.Err != nil {
		args = append(args, "error", r.Err.Error())
	}
	a.log.Warn("apply request took too long", args...)
	return true
}

func (a *applier) isSlow(took time.Duration) bool {
	return a.cfg.SlowApply > 0 && took >= a.cfg.SlowApply
}

// slowBatch logs that many commands together took too long, though none alone:
// that is time in which nothing else is applied.
func (a *applier) slowBatch(took time.Duration, work raft.Apply) {
	if !a.isSlow(took) {
		return
	}
	a.slowApplies.Add(1)
	a.log.Warn("apply request took too long", "took", took, "expected-duration", a.cfg.SlowApply,
		"entries", len(work.Entries), "first-index", uint64(work.Entries[0].Index))
}
