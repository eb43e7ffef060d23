package raft

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// memLog is a Log in memory whose disk can be made to hang or to fail.
type memLog struct {
	mu        sync.Mutex
	hs        *raftpb.HardState
	entries   []*raftpb.Entry
	snapshots []*raftpb.SnapshotMetadata
	files     int
	syncs     int
	appends   int
	released  uint64
	fail      error
	gate      chan struct{} // not nil: Sync waits until it is closed
	discard   bool          // keep nothing, for benchmarks
}

func (l *memLog) Append(hs *raftpb.HardState, entries []*raftpb.Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.appends++; l.discard {
		return l.fail
	}
	if hs != nil {
		l.hs = hs
	}
	for _, e := range entries {
		i := slices.IndexFunc(l.entries, func(o *raftpb.Entry) bool { return o.GetIndex() >= e.GetIndex() })
		if i >= 0 {
			l.entries = l.entries[:i:i]
		}
		l.entries = append(l.entries, e)
	}
	return l.fail
}

func (l *memLog) AppendSnapshot(s *raftpb.SnapshotMetadata) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.snapshots = append(l.snapshots, s)
	return l.fail
}

func (l *memLog) WriteSnapFile(*raftpb.Snapshot) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.files++
	return l.fail
}

func (l *memLog) Sync() error {
	l.mu.Lock()
	gate := l.gate
	l.mu.Unlock()
	if gate != nil {
		<-gate
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.syncs++
	return l.fail
}

func (l *memLog) Release(index uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.released = index
	return nil
}

// hang makes every later Sync wait until the returned function is called.
func (l *memLog) hang() (resume func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	gate := make(chan struct{})
	l.gate = gate
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.gate = nil
		close(gate)
	}
}

func (l *memLog) syncCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.syncs
}

// cluster is nodes with real goroutines in one synctest bubble.
type cluster struct {
	t     testing.TB
	ctx   context.Context
	stop  context.CancelFunc
	group sync.WaitGroup

	mu    sync.Mutex
	nodes map[MemberID]*testNode
	cut   map[MemberID]bool
}

type testNode struct {
	*Node
	c    *cluster
	log  *memLog
	stop context.CancelFunc
	err  chan error // what Run returned

	mu        sync.Mutex
	applied   []string // Data of normal entries
	snapshots int
	last      SnapshotMeta
	news      chan struct{} // closed and replaced at every change
}

func newCluster(t testing.TB) *cluster {
	ctx, stop := context.WithCancel(context.Background())
	return &cluster{t: t, ctx: ctx, stop: stop, nodes: map[MemberID]*testNode{}, cut: map[MemberID]bool{}}
}

// close ends all nodes and waits for them.
func (c *cluster) close() {
	c.stop()
	c.group.Wait()
}

func bootstrap(t testing.TB, members int) State {
	var changes []ConfChange
	for i := range members {
		changes = append(changes, ConfChange{Kind: AddVoter, Member: MemberID(i + 1)})
	}
	s, err := Bootstrap(changes)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// start runs a member; change may alter its configuration.
func (c *cluster) start(id MemberID, s State, change func(*Config)) *testNode {
	n := &testNode{c: c, log: &memLog{hs: s.HardState, entries: s.Entries}, err: make(chan error, 1), news: make(chan struct{})}
	cfg := Config{
		ID: id, PreVote: true, Log: n.log, Start: s, Transport: n, Snapshots: n, Rand: rand.Reader,
		CatchUpEntries: 50,
	}
	if change != nil {
		change(&cfg)
	}
	node, err := New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	n.Node = node
	ctx, stop := context.WithCancel(c.ctx)
	n.stop = stop
	c.mu.Lock()
	c.nodes[id] = n
	c.mu.Unlock()
	c.group.Go(func() { n.err <- node.Run(ctx) })
	c.group.Go(func() { n.applyAll(ctx) })
	return n
}

func (c *cluster) startAll(members int) []*testNode {
	var nodes []*testNode
	for i := range members {
		nodes = append(nodes, c.start(MemberID(i+1), bootstrap(c.t, members), nil))
	}
	return nodes
}

func (c *cluster) partition(id MemberID, away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut[id] = away
}

// Send implements Transport as a wire would: what arrives is a copy.
func (n *testNode) Send(messages []*raftpb.Message) {
	for _, m := range messages {
		n.c.mu.Lock()
		to := n.c.nodes[MemberID(m.GetTo())]
		cut := n.c.cut[MemberID(m.GetTo())] || n.c.cut[MemberID(m.GetFrom())]
		n.c.mu.Unlock()
		if to != nil && !cut {
			_ = to.Step(n.c.ctx, proto.Clone(m).(*raftpb.Message))
		}
	}
}

// SendSnapshot implements SnapshotSender: the body is what was applied.
func (n *testNode) SendSnapshot(m *raftpb.Message) {
	n.mu.Lock()
	Describe(m, n.last, []byte("{}"))
	n.mu.Unlock()
	n.Send([]*raftpb.Message{m})
	n.ReportSnapshot(MemberID(m.GetTo()), true)
}

func (n *testNode) applyAll(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-n.Applies():
			n.apply(a)
			n.Applied(a)
		}
	}
}

func (n *testNode) apply(a Apply) {
	conf := n.last.Conf // only this goroutine writes last
	for _, e := range a.Entries {
		if e.Kind == EntryConfChange {
			cc, err := DecodeConfChange(e.Data)
			if err != nil {
				n.c.t.Error(err)
			}
			conf = n.ApplyConfChange(&cc)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if a.Snapshot != nil {
		n.snapshots++
		n.last = *a.Snapshot
	}
	for _, e := range a.Entries {
		if e.Index != n.last.Index+1 {
			n.c.t.Errorf("member %d: entry %d after %d", n.cfg.ID, e.Index, n.last.Index)
		}
		n.last.Index, n.last.Term = e.Index, e.Term
		if e.Kind == EntryNormal && len(e.Data) > 0 {
			n.applied = append(n.applied, string(e.Data))
		}
	}
	if len(a.Entries) > 0 {
		n.last.Conf = conf
	}
	close(n.news)
	n.news = make(chan struct{})
}

// until waits for a condition on the applied state.
func (n *testNode) until(what string, ok func() bool) {
	n.c.t.Helper()
	deadline := time.After(time.Minute)
	for {
		n.mu.Lock()
		news, good := n.news, ok()
		n.mu.Unlock()
		if good {
			return
		}
		select {
		case <-news:
		case <-deadline:
			n.c.t.Fatalf("member %d: %s does not come: %+v", n.cfg.ID, what, n.Status())
		}
	}
}

func (n *testNode) untilApplied(data string) {
	n.c.t.Helper()
	n.until(fmt.Sprintf("%q applied", data), func() bool { return slices.Contains(n.applied, data) })
}

func (n *testNode) put(data string) {
	n.c.t.Helper()
	if err := n.Propose(n.c.ctx, []byte(data)); err != nil {
		n.c.t.Fatalf("propose %q: %v", data, err)
	}
	n.untilApplied(data)
}

// leader waits until all given nodes agree on one that leads.
func leader(t testing.TB, nodes ...*testNode) *testNode {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		changes := nodes[0].Changes()
		lead := nodes[0].Leader()
		agree := lead != 0
		for _, n := range nodes {
			agree = agree && n.Leader() == lead
		}
		for _, n := range nodes {
			if agree && n.cfg.ID == lead && n.Status().Role == Leader {
				return n
			}
		}
		select {
		case <-changes:
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			t.Fatal("no leader")
		}
	}
}

func follower(t testing.TB, nodes ...*testNode) *testNode {
	lead := leader(t, nodes...)
	for _, n := range nodes {
		if n != lead {
			return n
		}
	}
	t.Fatal("no follower")
	return nil
}

// inBubble runs the test in fake time with a cluster that is closed at its end.
func inBubble(t *testing.T, f func(t *testing.T, c *cluster)) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		f(t, c)
	})
}

var errDisk = errors.New("disk on fire")
