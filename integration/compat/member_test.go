package compat

import (
	"errors"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/integration/compat/process"
)

// errNoSpace is the client's value for a full store.
var errNoSpace = rpctypes.ErrNoSpace

// retried calls do again while the cluster says that it is not ready for a change of members: it judges that over
// seconds after a start, and a learner needs time to catch up.
func (e *env) retried(what string, do func() error) {
	e.t.Helper()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := do()
		if err == nil {
			return
		}
		if !errors.Is(err, rpctypes.ErrUnhealthy) && !errors.Is(err, rpctypes.ErrMemberLearnerNotReady) && err.Error() != learnerRPC.text {
			e.t.Fatalf("%s: %v", what, err)
		}
		select {
		case <-ticker.C:
		case <-e.ctx.Done():
			e.t.Fatalf("%s: still %v", what, err)
		}
	}
}

// Growing a cluster by a learner and shrinking it again is how machines are replaced: no write may be lost on the way.
func TestMembers(t *testing.T) {
	c := startCluster(t, process.Options{Binary: targetBinary(t), Size: 1})
	e := newEnv(t, c)
	e.put("before", "v")
	joined, err := c.Join("joined")
	if err != nil {
		t.Fatal(err)
	}
	var added *clientv3.MemberAddResponse
	e.retried("add a learner", func() error {
		added, err = e.MemberAddAsLearner(e.ctx, []string{joined.PeerURL})
		return err
	})
	id := added.Member.ID
	if !added.Member.IsLearner || added.Member.Name != "" || len(added.Members) != 2 || added.Member.PeerURLs[0] != joined.PeerURL {
		t.Errorf("added %v", added)
	}
	e.refusedChanges(joined, id)
	if err := joined.Launch(); err != nil {
		t.Fatal(err)
	}
	if err := joined.WaitReady(); err != nil {
		t.Fatal(err)
	}
	atLearner := newClient(t, joined.Endpoint())
	_, err = atLearner.Get(e.ctx, e.key("before"))
	wantError(t, err, learnerRPC)
	e.retried("promote the learner", func() error {
		_, err := e.MemberPromote(e.ctx, id)
		return err
	})
	_, err = e.MemberPromote(e.ctx, id)
	wantError(t, err, notLearner)
	e.retried("read through the new voter", func() error { // it hears of its promotion a moment after the leader
		got, err := atLearner.Get(e.ctx, e.key("before"))
		if err == nil && len(got.Kvs) != 1 {
			t.Errorf("read through the new voter: %v", got)
		}
		return err
	})
	e.namedMember(id, "joined", false)
	e.removeFirst(c, id)
}

// refusedChanges are changes that must not happen while a learner has not started.
func (e *env) refusedChanges(joined *process.Member, id uint64) {
	e.t.Helper()
	_, err := e.MemberAddAsLearner(e.ctx, []string{joined.PeerURL})
	if !errors.Is(err, rpctypes.ErrPeerURLExist) && !errors.Is(err, rpctypes.ErrMemberExist) {
		e.t.Errorf("the same peer URL again: %v", err)
	}
	_, err = e.MemberAddAsLearner(e.ctx, []string{"http://127.0.0.1:1"})
	wantError(e.t, err, tooManyLearner)
	_, err = pb.NewClusterClient(e.ActiveConnection()).MemberAdd(e.ctx, &pb.MemberAddRequest{})
	wantError(e.t, rpctypes.Error(err), badURLs)
	_, err = e.MemberRemove(e.ctx, 4242)
	wantError(e.t, err, memberNotFound)
	_, err = e.MemberUpdate(e.ctx, 4242, []string{"http://127.0.0.1:1"})
	wantError(e.t, err, memberNotFound)
	_, err = e.MemberPromote(e.ctx, 4242)
	wantError(e.t, err, memberNotFound)
	other := "http://localhost" + joined.PeerURL[len("http://127.0.0.1"):]
	if updated, err := e.MemberUpdate(e.ctx, id, []string{other}); err != nil || len(updated.Members) != 2 {
		e.t.Errorf("update: %v, %v", updated, err)
	}
	if member := e.member(id); member.PeerURLs[0] != other {
		e.t.Errorf("after the update: %v", member)
	}
	if _, err := e.MemberUpdate(e.ctx, id, []string{joined.PeerURL}); err != nil {
		e.t.Fatal(err)
	}
	_, err = e.MemberUpdate(e.ctx, id, []string{e.cluster.Members[0].PeerURL})
	wantError(e.t, err, peerURLsExist)
}

// member is what the list says of one member.
func (e *env) member(id uint64) *pb.Member {
	e.t.Helper()
	list, err := e.MemberList(e.ctx)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, m := range list.Members {
		if m.ID == id {
			return m
		}
	}
	e.t.Fatalf("member %x is not in %v", id, list.Members)
	return nil
}

func (e *env) namedMember(id uint64, name string, learner bool) {
	e.t.Helper()
	if m := e.member(id); m.Name != name || m.IsLearner != learner || len(m.ClientURLs) != 1 {
		e.t.Errorf("member %v, want name %s learner %t", m, name, learner)
	}
}

// removeFirst removes the member that the cluster began with: the one that stays has everything.
func (e *env) removeFirst(c *process.Cluster, stays uint64) {
	e.t.Helper()
	list, err := e.MemberList(e.ctx)
	if err != nil {
		e.t.Fatal(err)
	}
	last := newClient(e.t, c.Members[1].Endpoint())
	for _, m := range list.Members {
		if m.ID == stays {
			continue
		}
		e.retried("remove the first member", func() error {
			_, err := last.MemberRemove(e.ctx, m.ID)
			return err
		})
	}
	c.Members[0].WaitExit()
	got, err := last.Get(e.ctx, e.key("before"))
	if err != nil || len(got.Kvs) != 1 {
		e.t.Errorf("after the removal: %v, %v", got, err)
	}
	if _, err := last.Put(e.ctx, e.key("after"), "v"); err != nil {
		e.t.Errorf("put after the removal: %v", err)
	}
}
