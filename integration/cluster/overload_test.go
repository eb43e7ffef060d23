package cluster

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/internal/process"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// overloadRSSMax is what a member may need while ten times as much is asked of it
// as it can do.
const overloadRSSMax = 512 // MiB

// If this fails, a cluster that is asked for more than it can do serves nobody:
// it works on what nobody waits for any more, changes its leader, or loses leases.
func TestOverload(t *testing.T) {
	slow := slowBinary(t)
	e := start(t, process.Options{Binary: slow, Size: 3, Env: []string{"KVORUM_PLANTED=slow-apply"}})
	leader, term := e.leader(), e.mustStatus(e.leader()).RaftTerm
	lease, err := e.client.Grant(e.ctx, 20)
	check(t, err)
	_, err = e.client.Put(e.ctx, "held", "x", client.Lease(lease.ID))
	check(t, err)
	alive := e.client.KeepAlive(e.ctx, lease.ID)
	go func() {
		for range alive { // its end is seen by the key
		}
	}()
	load := &openLoop{conns: dialMany(t, 8, leader.Endpoint()), method: pb.KV_Put_FullMethodName, deadline: 2 * time.Second}
	for i := range 500 {
		r, err := (&pb.PutRequest{Key: fmt.Appendf(nil, "over/%d", i), Value: make([]byte, 200)}).MarshalVT()
		check(t, err)
		load.requests = append(load.requests, r)
	}
	lasts := lasting(4*time.Second, 15*time.Second)
	factors := []float64{10}
	if long() {
		factors = []float64{1, 2, 5, 10}
	}
	peak := load.closed(e.ctx, 60, lasts)
	t.Logf("peak: %s", peak)
	for _, factor := range factors {
		e.keepsGoodput(load, peak.goodput(), factor, lasts)
	}
	for _, m := range e.Members {
		if rss := peakMiB(t, m.PID()); rss > overloadRSSMax {
			t.Errorf("%s has taken %d MiB, more than %d", m.Name, rss, overloadRSSMax)
		}
	}
	if now := e.mustStatus(leader); now.RaftTerm != term {
		t.Errorf("the term went from %d to %d: the leader was lost", term, now.RaftTerm)
	}
	until(t, "the key of the lease is read after the load", waitMax, func() error {
		ctx, cancel := e.brief(requestMax)
		defer cancel()
		a, err := e.client.Get(ctx, "held")
		if err == nil && len(a.Kvs) != 1 {
			t.Fatal("the lease that was kept alive all the time is lost")
		}
		return err
	})
	e.caughtUp(e.Members)
	e.checkEqual()
}

// slowBinary is a server that plant.SlowApply can be put into.
func slowBinary(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("KVORUM_PLANTED_BIN"); path != "" {
		return path
	}
	path, err := build("kvorum-planted", "-tags", "planted")
	check(t, err)
	return path
}

// keepsGoodput asks for factor times the peak. A machine that is short of
// processors cannot even ask; so the best of some tries counts.
func (e *env) keepsGoodput(load *openLoop, peak, factor float64, lasts time.Duration) {
	e.t.Helper()
	best := 0.0
	for range 3 {
		load.run(e.ctx, factor*peak, time.Second) // what comes first finds no queue
		c := load.run(e.ctx, factor*peak, lasts)
		best = max(best, c.goodput()/peak)
		e.t.Logf("%gx: %s: %.0f%% of the peak; memory %d MiB", factor, c, 100*c.goodput()/peak, peakMiB(e.t, e.leader().PID()))
		if c.example != nil {
			e.t.Errorf("%d requests failed otherwise: %v", c.failed, c.example)
		}
		if best >= 0.8*min(1, factor) {
			if factor >= 5 && c.refused == 0 {
				e.t.Errorf("nothing was refused at %g times the peak", factor)
			}
			return
		}
	}
	e.t.Errorf("at %g times the peak, at most %.0f%% of it is answered in time", factor, 100*best)
}
