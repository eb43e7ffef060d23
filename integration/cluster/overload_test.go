package cluster

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/process"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

func TestXExplore(t *testing.T) {
	size := 1
	if os.Getenv("X3") != "" {
		size = 3
	}
	e := start(t, process.Options{Size: size})
	for _, m := range e.Members {
		_ = m
	}
	var reqs []frozen
	method := pb.KV_Put_FullMethodName
	kind := os.Getenv("XK")
	switch kind {
	case "put":
		for i := range 1000 {
			b, _ := (&pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i), Value: make([]byte, 256)}).MarshalVT()
			reqs = append(reqs, b)
		}
	case "txn":
		method = pb.KV_Txn_FullMethodName
		for i := range 100 {
			r := &pb.TxnRequest{}
			for j := range 64 {
				r.Success = append(r.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: fmt.Appendf(nil, "k%d/%d", i, j), Value: make([]byte, 100)}}})
			}
			b, _ := r.MarshalVT()
			reqs = append(reqs, b)
		}
	case "range":
		method = pb.KV_Range_FullMethodName
		e.putMany("r/", 1000, 16, strings.Repeat("x", 100))
		b, _ := (&pb.RangeRequest{Key: []byte("r/"), RangeEnd: []byte("r0")}).MarshalVT()
		reqs = append(reqs, b)
	case "count":
		method = pb.KV_Txn_FullMethodName
		r := &pb.TxnRequest{}
		e.putMany("r/", 1000, 16, strings.Repeat("x", 100))
		for range 100 {
			r.Success = append(r.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("r/"), RangeEnd: []byte("r0"), KeysOnly: true, Limit: 1, SortTarget: pb.RangeRequest_MOD, SortOrder: pb.RangeRequest_DESCEND}}})
		}
		b, _ := r.MarshalVT()
		reqs = append(reqs, b)
	}
	o := &openLoop{conns: dialMany(t, 20, e.leader().Endpoint()), method: method, requests: reqs, deadline: time.Second}
	e.hold(t)
	for _, n := range []int{64} {
		t.Logf("closed %d: %s", n, o.closed(e.ctx, n, 2*time.Second))
	}
	peak := o.closed(e.ctx, 256, 2*time.Second).goodput()
	for _, x := range []float64{1, 2, 10} {
		c := o.run(e.ctx, x*peak, 4*time.Second)
		t.Logf("%gx of %.0f: %s; RSS peak %d MiB", x, peak, c, peakMiB(t, e.leader().PID()))
	}
}

func (e *env) hold(t *testing.T) {
	d := os.Getenv("XDUTY")
	if d == "" {
		return
	}
	var on, of time.Duration
	fmt.Sscanf(d, "%d/%d", &on, &of)
	for _, m := range e.Members {
		go func() {
			for e.ctx.Err() == nil {
				m.Signal(freeze)
				time.Sleep((of - on) * time.Millisecond)
				m.Signal(thaw)
				time.Sleep(on * time.Millisecond)
			}
			m.Signal(thaw)
		}()
	}
}
