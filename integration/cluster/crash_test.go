package cluster

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/internal/process"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// way is what must go on so that a member comes to a point, besides a load.
type way int

const (
	underLoad     way = iota // nothing more: writes, and a log so small that it is cut off often
	leading                  // the member leads
	following                // the member follows
	compacting               // revisions are compacted
	defragmenting            // the member is defragmented
	electing                 // members are added and removed
	renewing                 // the member leads, and a checkpointed lease is renewed
	watching                 // the member has a watcher
	streaming                // the member streams a range
	starting                 // the member starts, with a torn record at the end of its log
	beginning                // the member starts for the first time
	installing               // the member starts, further behind than the others' logs reach
	cutting                  // the log fills a segment
)

// ways to come to each point. A point of the code that is not here fails the test.
func ways() map[string]way {
	all := map[string]way{}
	for w, names := range map[way]string{
		underLoad: `raftBeforeSave raftAfterSave raft/before-sync walBeforeSync walAfterSync raftAfterWALRelease
			beforeStartDBTxn afterStartDBTxn commitBeforePreCommitHook commitAfterPreCommitHook beforeCommit afterCommit
			beforeApplyOneEntryNormal beforeWritebackBuf afterWritebackBuf
			snap/before-sync snap/before-rename snap/before-dir-sync snap/after-write`,
		leading:   `raftBeforeLeaderSend raftDropHeartbeat`,
		following: `raftBeforeFollowerSend`,
		compacting: `compactBeforeCommitScheduledCompact compactAfterCommitScheduledCompact
			compactBeforeCommitBatch compactAfterCommitBatch compactBeforeSetFinishedCompact compactAfterSetFinishedCompact`,
		defragmenting: `defragBeforeCopy defragBeforeRename mvcc/after-defrag-rename`,
		electing:      `beforeApplyOneConfChange`,
		renewing:      `beforeCheckpointInLeaseRenew`,
		watching:      `beforeSendWatchResponse`,
		streaming:     `beforeRangeStreamChunk`,
		starting:      `wal/open-tail-cleared wal/repair-before-truncate wal/repair-after-truncate server/fast-lease-checkpoints`,
		beginning:     `wal/create-before-rename wal/create-before-dir-sync`,
		installing: `peer/before-snapshot-sync peer/before-snapshot-rename peer/before-snapshot-dir-sync
			raftBeforeSaveSnap raft/before-snapshot-record raftAfterSaveSnap raftBeforeApplySnap raftAfterApplySnap
			applyBeforeOpenSnapshot applyAfterOpenSnapshot mvcc/before-install-rename mvcc/after-install-rename`,
		cutting: `wal/cut-before-create wal/cut-before-rename wal/cut-before-dir-sync wal/after-cut`,
	} {
		for _, name := range strings.Fields(names) {
			all[name] = w
		}
	}
	return all
}

// If this fails, a crash at the wrong moment loses acknowledged writes or leaves
// a member that cannot start again.
func TestCrashPoints(t *testing.T) {
	t.Parallel()
	places, known := crashPoints(t), ways()
	for _, name := range slices.Sorted(maps.Keys(places)) {
		if _, ok := known[name]; !ok {
			t.Errorf("%s: nothing makes a member come to the crash point %s; say in ways() what does", places[name], name)
		}
	}
	for name := range known {
		if places[name] == "" {
			t.Errorf("ways() has the crash point %s, which is not in the code", name)
		}
	}
	armedBinary(t)
	t.Run("running", func(t *testing.T) {
		t.Parallel()
		c := startCrasher(t, known)
		for range rounds(1, 10) {
			c.crashRunning()
		}
		c.finish()
	})
	t.Run("starting", func(t *testing.T) {
		t.Parallel()
		c := startCrasher(t, known)
		for round := range rounds(1, 10) {
			c.crashStarting()
			c.crashBeginning(round)
			c.crashInstalling()
			c.crashCutting()
		}
		c.finish()
	})
}

// crasher lets members of one cluster of three die at points, one after the
// other, under load.
type crasher struct {
	*env
	r     *rand.Rand
	j     *journal
	known map[string]way
	lease int64
	hits  map[string]int
}

func startCrasher(t *testing.T, known map[string]way) *crasher {
	r := newRand(t)
	e := startArmed(t, append(smallLog(), "--feature-gates=LeaseCheckpoint=true")...)
	c := &crasher{env: e, r: r, known: known, hits: map[string]int{}}
	ctx, cancel := e.brief(waitMax)
	defer cancel()
	a, err := e.client.Grant(ctx, 3600)
	if err != nil {
		t.Fatal(err)
	}
	c.lease = a.ID
	c.j = e.load(r, "c/", 3, 64)
	c.j.progress(100)
	return c
}

func (c *crasher) finish() {
	c.t.Helper()
	c.j.finish()
	total := 0
	for _, n := range c.hits {
		total += n
	}
	c.t.Logf("%d deaths at %d points", total, len(c.hits))
}

// points are the names with one of these ways, in order.
func (c *crasher) points(of ...way) []string {
	var names []string
	for name, w := range c.known {
		if slices.Contains(of, w) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// crashRunning goes through the points of a member that runs: armed by its
// endpoint, with a panic, and in long runs also with a kill in the middle of a
// sleep; on the leader and on a follower where both come there.
func (c *crasher) crashRunning() {
	c.t.Helper()
	names := c.points(underLoad, leading, following, compacting, defragmenting, electing, renewing, watching, streaming)
	c.r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names {
		for _, m := range c.victims(c.known[name]) {
			c.panicAt(name, m)
			if long() {
				c.killAt(name, m)
			}
		}
	}
}

// victims are the members that come to a point this way: one, or in long runs a
// leader and a follower.
func (c *crasher) victims(w way) []*process.Member {
	c.t.Helper()
	leader, rest := c.followers()
	follower := rest[c.r.IntN(len(rest))]
	switch {
	case w == leading || w == renewing:
		return []*process.Member{leader}
	case w == following:
		return []*process.Member{follower}
	case long():
		return []*process.Member{leader, follower}
	}
	return []*process.Member{c.Members[c.r.IntN(len(c.Members))]}
}

// panicAt makes a running member panic at a point and start again.
func (c *crasher) panicAt(name string, m *process.Member) {
	c.t.Helper()
	from := mark(m)
	exited := m.Exited()
	c.arm(m, name, fmt.Sprintf("panic(%q)", name))
	if !c.provoke(c.known[name], m, func() bool { return isClosed(exited) }) {
		c.disarm(m, name)
		c.t.Errorf("%s (%s) did not come to the crash point %s", m.Name, c.role(m), name)
		return
	}
	c.died(m, from, name)
	c.recovered(m)
}

// killAt kills a member while it sleeps at a point.
func (c *crasher) killAt(name string, m *process.Member) {
	c.t.Helper()
	if w := c.known[name]; w == leading || w == renewing {
		m = c.leader()
	} else if w == following {
		_, rest := c.followers()
		m = rest[0]
	}
	c.arm(m, name, "sleep(20000)")
	if !c.provoke(c.known[name], m, func() bool { return c.passed(m, name) > 0 }) {
		c.disarm(m, name)
		c.t.Errorf("%s did not come to the crash point %s to sleep", m.Name, name)
		return
	}
	m.Kill()
	c.hits[name]++
	c.recovered(m)
}

// died checks that a member ended at the point, and nowhere else.
func (c *crasher) died(m *process.Member, from int, name string) {
	c.t.Helper()
	if code := m.Ended().ExitCode(); code != 2 || !says(m, from, "crash point "+name) {
		c.t.Errorf("%s ended with %v, not at the crash point %s:\n%s", m.Name, m.Ended(), name, m.LogTail(20))
		return
	}
	c.hits[name]++
}

// recovered starts a member and waits until it has what the others have.
func (c *crasher) recovered(m *process.Member) {
	c.t.Helper()
	m.Env = m.Env[:baseVariables]
	c.mustStart(m)
	c.caughtUp([]*process.Member{m})
	c.checkEqual()
}

func (c *crasher) role(m *process.Member) string {
	if s, err := c.status(m); err == nil && s.Leader == s.Header.MemberId {
		return "leader"
	}
	return "no leader"
}

// provoke does what leads to a point until over says that it was reached.
func (c *crasher) provoke(w way, m *process.Member, over func() bool) bool {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, waitMax)
	defer cancel()
	defer stopWhen(cancel, m.Exited())()
	if w == watching {
		go c.watchAt(ctx, m)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !over() {
		select {
		case <-ctx.Done():
			return over()
		case <-tick.C:
			brief, done := context.WithTimeout(ctx, 2*time.Second)
			c.push(brief, w, m)
			done()
		}
	}
	return true
}

// push is one step towards a point. Its errors are what the crash makes.
func (c *crasher) push(ctx context.Context, w way, m *process.Member) {
	switch w {
	case compacting:
		if a, err := c.client.Get(ctx, "x"); err == nil {
			_, _ = c.client.Compact(ctx, a.Header.Revision-1, false)
		}
	case defragmenting:
		_ = c.at(m).Defragment(ctx, m.Endpoint())
	case electing:
		_, _ = c.client.Cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{nobodyURL}, IsLearner: true})
		c.removeNobody(ctx)
	case renewing:
		_, _ = c.at(m).KeepAliveOnce(ctx, c.lease)
	case streaming:
		_ = c.at(m).GetStream(ctx, &pb.RangeRequest{Key: []byte("c/"), RangeEnd: []byte("c0")}, func(*pb.RangeResponse) error { return nil })
	}
}

// nobodyURL is the address of a learner that never starts.
const nobodyURL = "http://127.0.0.1:1"

func (c *crasher) removeNobody(ctx context.Context) {
	a, err := c.client.Members(ctx, false)
	if err != nil {
		return
	}
	for _, known := range a.Members {
		if len(known.PeerURLs) == 1 && known.PeerURLs[0] == nobodyURL {
			_, _ = c.client.Cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: known.ID})
		}
	}
}

func (c *crasher) watchAt(ctx context.Context, m *process.Member) {
	w := c.at(m).Watch(ctx, "c/", client.Prefix())
	for {
		if _, err := w.Next(); err != nil {
			return
		}
	}
}
