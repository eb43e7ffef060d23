package cluster

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/internal/process"
)

// If this fails, a leader that wakes up after a pause takes locks away from
// owners who have renewed their leases elsewhere, or tells an owner that a lease
// is renewed which has ended.
func TestOldLeaderAndLeases(t *testing.T) {
	t.Parallel()
	const ttl = 5
	e := start(t, process.Options{Size: 3})
	granted := time.Now()
	kept, err := e.client.Grant(e.ctx, ttl)
	check(t, err)
	ended, err := e.client.Grant(e.ctx, 600)
	check(t, err)
	_, err = e.client.Put(e.ctx, "kept", "x", client.Lease(kept.ID))
	check(t, err)
	old := e.leader()
	atOld := e.at(old)
	_, err = atOld.KeepAliveOnce(e.ctx, ended.ID) // the connection stands
	check(t, err)
	old.Signal(freeze)
	thawed := false
	defer func() {
		if !thawed {
			old.Signal(thaw)
		}
	}()
	next := e.leader(old)
	_, err = e.at(next).Revoke(e.ctx, ended.ID)
	check(t, err)
	renewal := make(chan error, 1)
	asking, stop := context.WithTimeout(e.ctx, waitMax)
	defer stop()
	go func() { // waits in the old leader's socket
		a, err := atOld.KeepAliveOnce(asking, ended.ID)
		if err == nil && a.TTL > 0 {
			err = errRenewed
		}
		renewal <- err
	}()
	for time.Since(granted) < (ttl+2)*time.Second {
		e.renew(next, kept.ID)
		pass(t, 300*time.Millisecond)
	}
	old.Signal(thaw)
	thawed = true
	if err := <-renewal; errors.Is(err, errRenewed) {
		t.Error("the old leader has renewed a lease that was revoked while it stood still")
	}
	for range 5 {
		e.renew(next, kept.ID)
		pass(t, 200*time.Millisecond)
	}
	e.caughtUp(e.Members)
	if a, err := e.at(next).Get(e.ctx, "kept"); err != nil || len(a.Kvs) != 1 {
		t.Errorf("the key of a lease that was renewed all the time is gone: %v", err)
	}
	e.checkEqual()
}

var errRenewed = errors.New("renewed")

// renew renews a lease that must be there.
func (e *env) renew(m *process.Member, id int64) {
	e.t.Helper()
	ctx, cancel := e.brief(waitMax)
	defer cancel()
	if a, err := e.at(m).KeepAliveOnce(ctx, id); err != nil || a.TTL <= 0 {
		e.t.Fatalf("renewal of a live lease at %s: %v, %v", m.Name, a, err)
	}
}
