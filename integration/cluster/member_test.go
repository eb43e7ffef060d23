package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/internal/process"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// If this fails, a cluster cannot grow, or a machine that died cannot be
// replaced, without losing data or the service.
func TestGrowAndReplace(t *testing.T) {
	t.Parallel()
	e := start(t, process.Options{Size: 1, Args: smallLog()})
	j := e.load(newRand(t), "m/", 3, 32)
	j.progress(200)

	e.addAndStart("m2", false)
	e.addAndStart("m3", false)
	j.progress(50)
	e.checkMembers(3, 0)

	dead := e.Members[1]
	dead.Kill()
	j.progress(20)
	e.remove(e.idOf(dead.Name))
	e.drop(dead)
	e.addAndStart("m4", false)
	e.checkMembers(3, 0)
	j.finish()
}

// If this fails, a learner slows the cluster down or a machine that has not
// caught up gets a vote.
func TestLearner(t *testing.T) {
	t.Parallel()
	e := start(t, process.Options{Size: 1, Args: smallLog()})
	j := e.load(newRand(t), "l/", 3, 32)
	j.progress(200)
	m, id := e.add("m2", true)
	if err := e.promote(id); err == nil || err.Error() != "etcdserver: can only promote a learner member which is in sync with leader" {
		t.Errorf("promotion of a learner that never started: %v", err)
	}
	e.mustStart(m)
	e.checkMembers(2, 1)
	e.learnerRefuses(m)
	until(t, "the learner is promoted", waitMax, func() error { return e.promote(id) })
	e.checkMembers(2, 0)
	if err := e.promote(id); err == nil || err.Error() != "etcdserver: can only promote a learner member" {
		t.Errorf("promotion of a voter: %v", err)
	}
	j.progress(20)
	j.finish()
	until(t, "the promoted member serves reads", waitMax, func() error {
		ctx, cancel := e.brief(requestMax)
		defer cancel()
		_, err := e.at(m).Get(ctx, "x")
		return err
	})
}

// learnerRefuses: a learner serves only reads of what it has.
func (e *env) learnerRefuses(m *process.Member) {
	e.t.Helper()
	ctx, cancel := e.brief(waitMax)
	defer cancel()
	if _, err := e.at(m).Put(ctx, "a", "b"); !errors.Is(err, client.ErrLearner) {
		e.t.Errorf("put at a learner: %v", err)
	}
	if _, err := e.at(m).Get(ctx, "a"); !errors.Is(err, client.ErrLearner) {
		e.t.Errorf("linearizable read at a learner: %v", err)
	}
	if _, err := e.at(m).Get(ctx, "a", client.Serializable()); err != nil {
		e.t.Errorf("serializable read at a learner: %v", err)
	}
}

// If this fails, an operator who removes a member leaves it running with old
// data, or loses the service when it was the leader.
func TestRemove(t *testing.T) {
	t.Parallel()
	e := start(t, process.Options{Size: 4})
	j := e.load(newRand(t), "r/", 3, 32)
	j.progress(50)
	leader, rest := e.followers()

	gone := rest[0]
	from := mark(gone)
	e.remove(e.idOf(gone.Name))
	e.checkRemovedStops(gone, from)
	e.checkRemovedStaysAway(gone)
	e.drop(gone)
	j.progress(20)

	from = mark(leader)
	e.remove(e.idOf(leader.Name))
	e.checkRemovedStops(leader, from)
	e.drop(leader)
	j.progress(20)
	e.checkMembers(2, 0)
	j.finish()
}

const removedText = "the member has been permanently removed from the cluster"

// checkRemovedStops: a removed member ends by itself and says why.
func (e *env) checkRemovedStops(m *process.Member, from int) {
	e.t.Helper()
	e.waitExit(m)
	for _, text := range []string{removedText, "data-dir used by this member must be removed"} {
		if !says(m, from, text) {
			e.t.Errorf("%s ended without saying %q:\n%s", m.Name, text, m.LogTail(10))
		}
	}
}

// checkRemovedStaysAway: a member that is gone does not come back with its old
// data.
func (e *env) checkRemovedStaysAway(m *process.Member) {
	e.t.Helper()
	from := mark(m)
	if err := m.Launch(); err != nil {
		e.t.Fatal(err)
	}
	e.waitExit(m)
	if !says(m, from, removedText) {
		e.t.Errorf("the removed member ended again without saying why:\n%s", m.LogTail(10))
	}
}

// If this fails, a machine cannot get another address.
func TestUpdatePeerURL(t *testing.T) {
	t.Parallel()
	e := start(t, process.Options{Size: 3})
	j := e.load(newRand(t), "u/", 3, 32)
	j.progress(20)
	_, rest := e.followers()
	m := rest[0]
	id := e.idOf(m.Name)
	ports, err := process.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	url := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	e.change("member update", func(ctx context.Context) error {
		_, err := e.client.Cluster.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: id, PeerURLs: []string{url}})
		return err
	})
	m.Terminate()
	m.Args = append(m.Args, "--listen-peer-urls", url)
	e.mustStart(m)
	j.progress(50)
	e.caughtUp([]*process.Member{m})
	for _, known := range e.members() {
		if known.ID == id && (len(known.PeerURLs) != 1 || known.PeerURLs[0] != url) {
			t.Errorf("the member list says %v, not %s", known.PeerURLs, url)
		}
	}
	// The new address carries votes: without another follower the cluster needs it.
	rest[1].Kill()
	j.progress(20)
	e.mustStart(rest[1])
	j.finish()
}

// add adds a member to the cluster, prepared but not started.
func (e *env) add(name string, learner bool) (*process.Member, uint64) {
	e.t.Helper()
	m, err := e.Join(name)
	if err != nil {
		e.t.Fatal(err)
	}
	var id uint64
	e.change("member add", func(ctx context.Context) error {
		a, err := e.client.Cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{m.PeerURL}, IsLearner: learner})
		if err == nil {
			id = a.Member.ID
		} else if strings.Contains(err.Error(), "Peer URLs already exists") {
			// An earlier attempt without an answer took effect.
			for _, known := range e.members() {
				if len(known.PeerURLs) == 1 && known.PeerURLs[0] == m.PeerURL {
					id, err = known.ID, nil
				}
			}
		}
		return err
	})
	return m, id
}

func (e *env) addAndStart(name string, learner bool) {
	e.t.Helper()
	m, _ := e.add(name, learner)
	e.mustStart(m)
	e.caughtUp([]*process.Member{m})
	e.avoid()
}

// change does a change of the membership, which is refused while the members
// have not known each other for a few seconds.
func (e *env) change(what string, do func(context.Context) error) {
	e.t.Helper()
	until(e.t, what, waitMax, func() error {
		ctx, cancel := e.brief(requestMax)
		defer cancel()
		return do(ctx)
	})
}

func (e *env) remove(id uint64) {
	e.t.Helper()
	e.change("member remove", func(ctx context.Context) error {
		_, err := e.client.Cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: id})
		if errors.Is(err, client.ErrMemberNotFound) {
			return nil // an earlier attempt without an answer
		}
		return err
	})
}

func (e *env) promote(id uint64) error {
	ctx, cancel := e.brief(waitMax)
	defer cancel()
	_, err := e.client.Cluster.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: id})
	return err
}

// drop forgets a member that is no longer in the cluster.
func (e *env) drop(m *process.Member) {
	e.t.Helper()
	for i, other := range e.Members {
		if other == m {
			e.Members = append(e.Members[:i:i], e.Members[i+1:]...)
		}
	}
	if err := os.RemoveAll(m.Dir); err != nil {
		e.t.Fatal(err)
	}
	e.avoid()
}

func (e *env) members() []*pb.Member {
	e.t.Helper()
	var all []*pb.Member
	until(e.t, "the member list", waitMax, func() error {
		ctx, cancel := e.brief(requestMax)
		defer cancel()
		a, err := e.client.Members(ctx, false)
		if err == nil {
			all = a.Members
		}
		return err
	})
	return all
}

func (e *env) idOf(name string) uint64 {
	e.t.Helper()
	for _, m := range e.members() {
		if m.Name == name {
			return m.ID
		}
	}
	e.t.Fatalf("no member has the name %s", name)
	return 0
}

// checkMembers counts all members and the learners among them.
func (e *env) checkMembers(all, learners int) {
	e.t.Helper()
	list, found := e.members(), 0
	for _, m := range list {
		if m.IsLearner {
			found++
		}
	}
	if len(list) != all || found != learners {
		e.t.Errorf("the cluster has %d members, %d of them learners; want %d and %d: %v", len(list), found, all, learners, list)
	}
}
