package raft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sync/errgroup"

	"github.com/kvorum/kvorum/internal/crash"
	"github.com/kvorum/kvorum/internal/must"
)

// Transport carries messages to other members. Send returns at once, is called
// from two goroutines, keeps the messages but not the slice, and may drop what
// it cannot send.
type Transport interface {
	Send(messages []*raftpb.Message)
}

// SnapshotSender sends a whole state to a member that lags too far. It takes m,
// a MsgSnap, replaces its snapshot by the position of the body that it attaches
// (see Describe), sends both, and reports with Node.ReportSnapshot. It returns
// at once.
type SnapshotSender interface {
	SendSnapshot(m *raftpb.Message)
}

// Config is what a node needs. Zero values of the numbers mean the default.
type Config struct {
	ID             MemberID
	ElectionTicks  int           // 10
	HeartbeatTicks int           // 1
	TickEvery      time.Duration // 100 ms
	InitialTicks   int           // election ticks that count as passed at start
	PreVote        bool

	Log       Log
	Start     State
	Transport Transport
	Snapshots SnapshotSender
	Logger    *slog.Logger
	Rand      io.Reader // 8 bytes are read, once

	CatchUpEntries int // applied entries kept in memory for members that lag: 5000
	LogBytesMax    int // and their size: 256 MiB

	ProposalBytesMax    int // queued proposals; above: ErrTooManyRequests. 64 MiB
	MessageBytesMax     int // queued messages from members; above: dropped. 128 MiB
	WriteBytesMax       int // not yet on disk; above: proposals wait, messages with entries are dropped. 256 MiB
	ApplyBytesMax       int // handed to the applier and not applied; above: more wait in the log. 16 MiB
	UncommittedBytesMax int // in the leader's log without a quorum; above: proposals wait. 256 MiB

	nonce uint64
}

func (c *Config) fill() error {
	setDefault(&c.ElectionTicks, 10)
	setDefault(&c.HeartbeatTicks, 1)
	setDefault(&c.CatchUpEntries, 5000)
	setDefault(&c.LogBytesMax, 256<<20)
	setDefault(&c.ProposalBytesMax, 64<<20)
	setDefault(&c.MessageBytesMax, 128<<20)
	setDefault(&c.WriteBytesMax, 256<<20)
	setDefault(&c.ApplyBytesMax, 16<<20)
	setDefault(&c.UncommittedBytesMax, 256<<20)
	if c.TickEvery == 0 {
		c.TickEvery = 100 * time.Millisecond
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Log == nil || c.Transport == nil || c.Snapshots == nil || c.Rand == nil {
		return errors.New("raft config: Log, Transport, Snapshots and Rand are needed")
	}
	var nonce [8]byte
	if _, err := io.ReadFull(c.Rand, nonce[:]); err != nil {
		return fmt.Errorf("raft config: read nonce: %w", err)
	}
	c.nonce = binary.BigEndian.Uint64(nonce[:]) ^ uint64(c.ID)
	return nil
}

func setDefault(field *int, value int) {
	if *field == 0 {
		*field = value
	}
}

// Node is one member's side of the agreement. All methods may be called from
// any goroutine; nothing happens until Run.
type Node struct {
	cfg     Config
	logger  *slog.Logger
	in      inbox
	queue   *writeQueue
	writer  *writer // owned by the writer goroutine
	core    *core   // owned by the loop
	applies chan Apply
	stopped chan struct{} // closed when Run is over

	waiting   []Apply     // owned by the loop: not yet taken by the applier
	transfers []*transfer // owned by the loop
	backlog   atomic.Bool // the disk is behind by WriteBytesMax
	solo      atomic.Uint64
	lead      atomic.Uint64
	beat      heartbeat
	stall     stall // ticked by the loop

	mu      sync.Mutex
	status  Status
	changed chan struct{} // closed and replaced when the leader changes
}

// New makes a node from what the disk says. It may be called once per Log.
func New(cfg Config) (*Node, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	if last := cfg.Start.last(); cfg.Start.Applied > last {
		cfg.Logger.Error("the state is ahead of the log; entries take effect only above it",
			"member", hex(cfg.ID), "applied", cfg.Start.Applied, "last", last)
	}
	core, err := newCore(cfg)
	if err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	n := &Node{
		cfg:    cfg,
		logger: cfg.Logger,
		in: inbox{
			wake:             make(chan struct{}, 1),
			proposalBytesMax: cfg.ProposalBytesMax,
			messageBytesMax:  cfg.MessageBytesMax,
		},
		queue:   newWriteQueue(),
		writer:  newWriter(cfg.ID, cfg.Log, cfg.Start),
		core:    core,
		applies: make(chan Apply),
		stopped: make(chan struct{}),
		changed: make(chan struct{}),
		stall:   stall{electionTicks: cfg.ElectionTicks},
	}
	n.publish(false)
	return n, nil
}

func (s State) last() Index {
	if n := len(s.Entries); n > 0 {
		return Index(s.Entries[n-1].GetIndex())
	}
	return s.Snapshot.Index
}

// Run is the node's life. It returns nil when ctx ends and what was decided is
// written, and the error of the log when a write failed: the member must then
// stop.
func (n *Node) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.queue.run(n.writer, n.cfg.Transport, &n.in) })
	group.Go(func() error {
		defer n.queue.close()
		n.loop(ctx)
		return nil
	})
	err := group.Wait()
	n.solo.Store(0) // nobody may read or propose on what this node knew
	n.lead.Store(0)
	close(n.stopped)
	return err
}

// loop is the one goroutine that touches the core. It waits only for news.
func (n *Node) loop(ctx context.Context) {
	ticker := time.NewTicker(n.cfg.TickEvery)
	defer ticker.Stop()
	for range n.cfg.InitialTicks {
		n.core.tick()
	}
	var m mail
	var ps []proposal
	for {
		n.act(n.core.ready())
		next, out := n.nextApply()
		select {
		case <-ctx.Done():
			return
		case out <- next:
			n.waiting[0] = Apply{}
			n.waiting = n.waiting[1:]
			continue
		case <-ticker.C:
			n.beat.tick(time.Now(), n.cfg.TickEvery, n.core.role == Leader)
			n.core.tick()
			n.queue.tick()
			n.watchDisk()
			n.endTransfers()
			n.repeatTransfers()
			n.dropCancelled()
		case <-n.in.wake:
			runtime.Gosched() // what others bring now is one batch with what woke us
		}
		m, ps = n.turn(m, ps)
	}
}

// nextApply is the oldest work for the applier, and the channel to send it on;
// without work the channel is nil and never ready.
func (n *Node) nextApply() (Apply, chan<- Apply) {
	if len(n.waiting) == 0 {
		return Apply{}, nil
	}
	return n.waiting[0], n.applies
}

// turn feeds everything that came in to the core. The arguments are the buffers
// of the turn before.
func (n *Node) turn(m mail, ps []proposal) (mail, []proposal) {
	m, round := n.in.take(m, n.core.reads.idle())
	for _, it := range m.written {
		if it.message != nil {
			n.core.appended(it.message)
		}
	}
	for _, msg := range m.messages {
		n.core.step(msg)
	}
	for _, a := range m.applied {
		n.core.applied(a)
	}
	for _, id := range m.unreachable {
		n.core.rn.ReportUnreachable(uint64(id))
	}
	for _, call := range m.calls {
		call(n.core)
	}
	if round != nil {
		n.core.reads.start(round)
	}
	m.reset()
	return m, n.propose(ps)
}

// propose offers the queued proposals unless they could only be dropped.
func (n *Node) propose(ps []proposal) []proposal {
	backlog := n.queue.backlogBytes() > n.cfg.WriteBytesMax
	n.backlog.Store(backlog)
	if backlog || !n.core.canPropose() {
		return ps
	}
	ps = n.in.takeProposals(ps)
	if len(ps) == 0 {
		return ps
	}
	taken := n.core.propose(ps)
	bytes := 0
	for _, p := range ps[:taken] {
		bytes += p.bytes()
	}
	n.in.settle(bytes, ps[taken:])
	clear(ps)
	return ps[:0]
}

// dropCancelled forgets queued proposals whose clients are gone, so that they
// do not take effect long after.
func (n *Node) dropCancelled() {
	ps := n.in.takeProposals(nil)
	bytes, left := 0, ps[:0]
	for _, p := range ps {
		if p.ctx.Err() == nil {
			left = append(left, p)
		} else {
			bytes += p.bytes()
		}
	}
	n.in.settle(bytes, left)
}

// act hands out the work of a turn. What others may see of the state is
// published first: a member that voted must not serve one more read as leader.
func (n *Node) act(w *Work) {
	n.publish(w.LeaderChanged)
	n.queue.put(w.Append)
	n.send(w.Send)
	for _, m := range w.Snapshots {
		n.cfg.Snapshots.SendSnapshot(m)
	}
	for _, a := range w.Applies {
		n.waiting = merge(n.waiting, a)
	}
	for i, round := range w.Reads {
		round.finish(w.ReadIndex[i], w.ReadErr[i])
	}
	if w.LeaderChanged {
		n.endTransfers()
		poke(n.in.wake) // proposals may have waited for a leader
	}
	n.core.done()
}

// send gives messages to the transport.
func (n *Node) send(messages []*raftpb.Message) {
	if len(messages) == 0 {
		return
	}
	if n.core.role == Leader {
		crash.Here("raftBeforeLeaderSend")
		if crash.On {
			messages = droppedHeartbeats(messages)
		}
	} else {
		crash.Here("raftBeforeFollowerSend")
	}
	n.cfg.Transport.Send(messages)
}

// droppedHeartbeats leaves the heartbeats out while the fault of that name is
// set.
func droppedHeartbeats(messages []*raftpb.Message) []*raftpb.Message {
	isHeartbeat := func(m *raftpb.Message) bool { return m.GetType() == raftpb.MsgHeartbeat }
	if !slices.ContainsFunc(messages, isHeartbeat) || !crash.Set("raftDropHeartbeat") {
		return messages
	}
	return slices.DeleteFunc(slices.Clone(messages), isHeartbeat)
}

// merge queues a for the applier, as part of the last one if that is still
// here: the slower the applier, the larger its batches.
func merge(waiting []Apply, a Apply) []Apply {
	if k := len(waiting); k > 0 && a.Snapshot == nil && waiting[k-1].Snapshot == nil {
		last := &waiting[k-1]
		last.Entries = append(last.Entries, a.Entries...)
		last.answers = append(last.answers, a.answers...)
		last.bytes += a.bytes
		last.urgent = last.urgent || a.urgent
		return waiting
	}
	return append(waiting, a)
}

// publish makes the core's state visible to other goroutines.
func (n *Node) publish(leaderChanged bool) {
	c := n.core
	n.solo.Store(uint64(c.soloCommit()))
	s := c.status()
	n.mu.Lock()
	n.status = s
	n.mu.Unlock()
	if !leaderChanged {
		return
	}
	n.logLeader(MemberID(n.lead.Swap(uint64(c.lead))))
	n.mu.Lock()
	close(n.changed)
	n.changed = make(chan struct{})
	n.mu.Unlock()
}

// Propose queues a command; it returns once queued, and the command has taken
// effect when the applier gets it. While nobody leads it waits. A command
// queued may still be lost, or come later than ctx ends: the outcome is known
// only from Applies.
func (n *Node) Propose(ctx context.Context, data []byte) error {
	return n.propose1(ctx, proposal{data: data, kind: EntryNormal, ctx: ctx})
}

// ProposeInTerm is Propose for what only the leader of one term may decide: in
// another term, or at a member that does not lead, the command is dropped
// instead of being passed on to whoever leads now.
func (n *Node) ProposeInTerm(ctx context.Context, data []byte, term Term) error {
	must.True(term > 0, "proposal in term 0")
	return n.propose1(ctx, proposal{data: data, kind: EntryNormal, ctx: ctx, term: term})
}

// ProposeConfChange queues a membership change. Only one may be on its way at a
// time; the leader turns another into an empty entry, which the proposer
// notices only by its change not coming.
func (n *Node) ProposeConfChange(ctx context.Context, cc ConfChange) error {
	data, err := cc.Encode()
	if err != nil {
		return err
	}
	return n.propose1(ctx, proposal{data: data, kind: EntryConfChange, ctx: ctx})
}

func (n *Node) propose1(ctx context.Context, p proposal) error {
	for n.lead.Load() == 0 {
		changes := n.Changes()
		if n.lead.Load() != 0 {
			break
		}
		select {
		case <-changes:
		case <-ctx.Done():
			return ctx.Err()
		case <-n.stopped:
			return ErrStopped
		}
	}
	return n.in.propose(p)
}

// Step takes a message from another member. A full queue drops it with
// ErrQueueFull.
func (n *Node) Step(_ context.Context, m *Message) error {
	if !isPossible(m, n.cfg.ID) {
		return ErrBadMessage
	}
	if len(m.GetEntries()) > 0 && n.backlog.Load() {
		return ErrQueueFull
	}
	return n.in.message(m)
}

// ReadIndex returns an index such that a state that has applied it reflects all
// that was acknowledged anywhere before the call. While nobody leads it waits.
func (n *Node) ReadIndex(ctx context.Context) (Index, error) {
	if commit := n.solo.Load(); commit != 0 {
		return Index(commit), nil
	}
	round := n.in.joinRead()
	defer round.waiters.Add(-1)
	select {
	case <-round.done:
		return round.index, round.err
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-n.stopped:
		return 0, ErrStopped
	}
}

// Applies is the applier's queue: in order, without a gap, only what is durable
// here. Each Apply must be answered with Applied.
func (n *Node) Applies() <-chan Apply { return n.applies }

// Applied says that the applier is done with a, and gives its slice back.
func (n *Node) Applied(a Apply) {
	n.in.applied(a, a.urgent || n.lead.Load() == 0)
}

// ApplyConfChange makes a committed membership change take effect; nil stands
// for one that the state machine refused. The applier calls it, before it
// answers the Apply, and gets the membership from then on.
func (n *Node) ApplyConfChange(cc *ConfChange) ConfState {
	var conf ConfState
	if !n.ask(context.Background(), func(c *core) { conf = c.applyConfChange(cc) }) {
		return n.Status().Conf
	}
	return conf
}

// ask runs f in the loop and waits for it; false: it will not run any more, or
// the caller did not wait.
func (n *Node) ask(ctx context.Context, f func(*core)) bool {
	done := make(chan struct{})
	n.in.call(func(c *core) {
		f(c)
		close(done)
	})
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	case <-n.stopped:
		return false
	}
}

// ReportUnreachable says that messages to the member are being lost.
func (n *Node) ReportUnreachable(id MemberID) {
	n.in.lost(id)
}

// ReportSnapshot says how sending a snapshot to the member ended.
func (n *Node) ReportSnapshot(id MemberID, ok bool) {
	status := raft.SnapshotFinish
	if !ok {
		status = raft.SnapshotFailure
	}
	n.in.call(func(c *core) { c.rn.ReportSnapshot(uint64(id), status) })
}

// SaveSnapshot makes it durable that the state up to meta no longer needs the
// log: the .snap file with data as its body, then a record in the log; then
// entries far below are released. The state itself must be durable up to
// meta.Index before. It waits for the disk.
func (n *Node) SaveSnapshot(ctx context.Context, meta SnapshotMeta, data []byte) error {
	must.True(meta.Index > 0, "snapshot at index 0")
	snap := &raftpb.Snapshot{Data: data, Metadata: meta.proto()}
	if err := n.cfg.Log.WriteSnapFile(snap); err != nil {
		return fmt.Errorf("write snapshot file: %w", err)
	}
	done := make(chan struct{})
	n.queue.put(nil, writeItem{taken: snap.GetMetadata(), done: done})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-n.stopped:
		return ErrStopped
	}
}
