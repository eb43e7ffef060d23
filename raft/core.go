package raft

import (
	"errors"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kvorum/kvorum/internal/crash"
	"github.com/kvorum/kvorum/internal/must"
	"github.com/kvorum/kvorum/internal/plant"
)

// Limits that Kvorum shares with etcd, so that mixed clusters behave alike.
const (
	messageBytesMax     = 1 << 20
	messagesInFlightMax = 512
)

// core decides what a member does. It wraps the library's RawNode with
// asynchronous storage writes: ticks, messages, proposals and answers go in;
// ready returns the work they caused. It has no goroutine, no clock and no I/O,
// so a simulator and the node drive the very same decisions.
//
// Owned by one goroutine.
type core struct {
	id    MemberID
	rn    *raft.RawNode
	log   *entryLog
	reads readRounds
	heirs succession
	work  Work

	// As of the last ready.
	lead   MemberID
	role   Role
	term   Term
	commit Index
	conf   ConfState

	transferring bool // leadership is on its way to another member; proposals would be dropped
	applyBytes   int  // handed out as Apply and not yet applied
	applyMax     int
	spare        [][]Entry // slices to build the next Apply in
}

// Work is what has to be done after a turn. It is valid until the next ready;
// the messages and entries within stay valid.
type Work struct {
	Append    []*raftpb.Message // for the writer, in this order, none may be lost
	Send      []*raftpb.Message // to other members, now, in parallel with the writing
	Snapshots []*raftpb.Message // MsgSnap: someone has to attach a whole state
	Applies   []Apply           // for the applier, in this order
	Reads     []*readRound      // to be finished with ReadIndex or ReadErr
	ReadIndex []Index           // per element of Reads
	ReadErr   []error           // per element of Reads

	LeaderChanged bool
}

func (w *Work) reset() {
	clear(w.Append)
	clear(w.Send)
	clear(w.Applies)
	*w = Work{
		Append: w.Append[:0], Send: w.Send[:0], Snapshots: w.Snapshots[:0], Applies: w.Applies[:0],
		Reads: w.Reads[:0], ReadIndex: w.ReadIndex[:0], ReadErr: w.ReadErr[:0],
	}
}

func (w *Work) finish(r *readRound, index Index, err error) {
	w.Reads = append(w.Reads, r)
	w.ReadIndex = append(w.ReadIndex, index)
	w.ReadErr = append(w.ReadErr, err)
}

// proposal is one command waiting to become an entry.
type proposal struct {
	data []byte
	kind EntryKind
	ctx  doner // its client: if gone, there is no need to propose
	term Term  // 0, or the term that this member must lead, else it is dropped
}

type doner interface{ Err() error }

func newCore(cfg Config) (*core, error) {
	start := cfg.Start
	if err := start.check(); err != nil {
		return nil, err
	}
	log := newEntryLog(start, cfg.CatchUpEntries, cfg.LogBytesMax)
	applied := max(min(start.Applied, Index(start.HardState.GetCommit())), start.Snapshot.Index)
	if start.Applied > Index(log.last()) && aloneIn(start.Conf, cfg.ID) {
		return nil, ErrAppliedBeyondLog
	}
	log.trim(uint64(applied))
	rn, err := raft.NewRawNode(&raft.Config{
		ID:                        uint64(cfg.ID),
		ElectionTick:              cfg.ElectionTicks,
		HeartbeatTick:             cfg.HeartbeatTicks,
		Storage:                   log,
		Applied:                   uint64(applied),
		AsyncStorageWrites:        true,
		MaxSizePerMsg:             messageBytesMax,
		MaxCommittedSizePerReady:  uint64(cfg.ApplyBytesMax),
		MaxUncommittedEntriesSize: uint64(cfg.UncommittedBytesMax),
		MaxInflightMsgs:           messagesInFlightMax,
		CheckQuorum:               true,
		PreVote:                   cfg.PreVote,
		ReadOnlyOption:            raft.ReadOnlySafe,
		StepDownOnRemoval:         true,
		Logger:                    libraryLogger{cfg.Logger},
	})
	if err != nil {
		return nil, err
	}
	return &core{
		id: cfg.ID, rn: rn, log: log, applyMax: cfg.ApplyBytesMax,
		reads:  readRounds{nonce: cfg.nonce, retryTicks: max(1, cfg.ElectionTicks/2)},
		heirs:  succession{electionTicks: cfg.ElectionTicks},
		term:   Term(start.HardState.GetTerm()),
		commit: max(Index(start.HardState.GetCommit()), start.Snapshot.Index),
		conf:   start.Conf,
	}, nil
}

func aloneIn(conf ConfState, id MemberID) bool {
	return len(conf.Voters) == 1 && conf.Voters[0] == id
}

func (c *core) tick() {
	c.rn.Tick()
	if c.role != Leader && c.heirs.tick(c.id, c.conf.Voters) {
		_ = c.rn.Campaign()
	}
	if c.reads.tick() && c.mayRead() {
		c.rn.ReadIndex(c.reads.ask())
	}
}

// step takes a message from another member.
func (c *core) step(m *raftpb.Message) {
	if Term(m.GetTerm()) >= c.term {
		c.heirs.heard(m)
	}
	switch m.GetType() {
	case raftpb.MsgReadIndex:
		// The library answers at once when this leader is the only voter, even
		// before it has committed in its term. The member will ask again.
		if c.role == Leader && aloneIn(c.conf, c.id) && !c.committedInTerm() {
			return
		}
	case raftpb.MsgTransferLeader:
		c.transferring = true
	}
	// What fails here (an unknown sender, no leader to forward to) is a message
	// lost, and members send again.
	_ = c.rn.Step(m)
}

// canPropose reports whether proposals would be taken now; if not, they wait.
func (c *core) canPropose() bool { return c.lead != 0 && !c.transferring }

// propose offers commands to the log of the leader, here or elsewhere, and
// returns how many were taken; the others have to be offered again.
func (c *core) propose(ps []proposal) (taken int) {
	for taken < len(ps) {
		n, size := 0, 0
		for _, p := range ps[taken:] {
			if size += len(p.data) + entryOverheadBytes; n > 0 && size > messageBytesMax {
				break
			}
			n++
		}
		if current := c.current(ps[taken : taken+n]); len(current) > 0 {
			err := c.rn.Step(proposeMessage(c.id, current))
			if errors.Is(err, raft.ErrProposalDropped) {
				return taken
			}
			must.NoError(err, "step proposals")
		}
		taken += n
	}
	return taken
}

// current leaves out the proposals that count in one term only, unless this
// member leads it. It asks the library, which knows of messages that came since
// the last ready, and would send the proposals to another leader.
func (c *core) current(ps []proposal) []proposal {
	if !slices.ContainsFunc(ps, func(p proposal) bool { return p.term != 0 }) {
		return ps
	}
	led := Term(0)
	if st := c.rn.BasicStatus(); st.RaftState == raft.StateLeader {
		led = Term(st.GetTerm())
	}
	return slices.DeleteFunc(slices.Clone(ps), func(p proposal) bool { return p.term != 0 && p.term != led })
}

// proposeMessage is one message for all: the leader answers it with one append
// message per follower instead of one per command.
func proposeMessage(from MemberID, ps []proposal) *raftpb.Message {
	slab := make([]raftpb.Entry, len(ps))
	entries := make([]*raftpb.Entry, len(ps))
	for i, p := range ps {
		slab[i].Data = p.data
		if p.kind != EntryNormal {
			slab[i].Type = raftpb.EntryType(p.kind).Enum()
		}
		entries[i] = &slab[i]
	}
	return &raftpb.Message{Type: raftpb.MsgProp.Enum(), From: new(uint64(from)), Entries: entries}
}

// appended takes the news that m, a MsgStorageAppend of an earlier Work, and
// all before it are durable.
func (c *core) appended(m *raftpb.Message) {
	if snap := m.GetSnapshot(); snap != nil {
		meta := snapshotMetaOf(snap.GetMetadata())
		crash.Here("raftBeforeApplySnap")
		c.log.restore(snap.GetMetadata())
		crash.Here("raftAfterApplySnap")
		c.conf = meta.Conf
		// Before any later entry: those come only after the answer below.
		c.work.Applies = append(c.work.Applies, Apply{Snapshot: &meta, urgent: true})
	}
	c.log.append(m.GetEntries())
	for _, answer := range m.GetResponses() {
		if answer.GetTo() == uint64(c.id) {
			_ = c.rn.Step(answer)
		}
	}
}

// applied takes the news that the applier is done with a.
func (c *core) applied(a Apply) {
	for _, answer := range a.answers {
		_ = c.rn.Step(answer)
		entries := answer.GetEntries()
		c.log.trim(entries[len(entries)-1].GetIndex())
	}
	c.applyBytes -= a.bytes
	if cap(a.Entries) > 0 && cap(a.Entries) <= 4096 && len(c.spare) < 4 {
		clear(a.Entries)
		c.spare = append(c.spare, a.Entries[:0])
	}
}

// applyConfChange makes a committed membership change take effect; nil is a
// change that the state machine refused.
func (c *core) applyConfChange(cc *ConfChange) ConfState {
	if cc != nil {
		cs := c.rn.ApplyConfChange(cc.proto())
		c.log.conf = cs
		c.conf = ConfStateOf(cs)
	}
	return c.conf
}

// mayRead reports whether asking for a read index now can succeed and is safe.
func (c *core) mayRead() bool {
	if c.lead == 0 {
		return false
	}
	if c.role == Leader && aloneIn(c.conf, c.id) {
		return c.committedInTerm()
	}
	return true
}

// committedInTerm reports whether the leader of a one-voter cluster has
// committed in its own term. (With more voters the commit may not be in the
// local log yet, and the library waits for it by itself.)
func (c *core) committedInTerm() bool {
	term, err := c.log.Term(uint64(c.commit))
	return err == nil && Term(term) == c.term
}

// soloCommit is the commit index if it may serve as a read index without asking
// anyone, else 0.
//
// Invariant: nobody else can lead while this holds: a new leader needs a vote
// from here, and the vote ends the role before it leaves.
func (c *core) soloCommit() Index {
	if c.role == Leader && aloneIn(c.conf, c.id) && c.committedInTerm() {
		return c.commit
	}
	return 0
}

// soloDue reports whether this is the only voter and should not wait for an
// election timeout that nobody else could end.
func (c *core) soloDue() bool {
	return c.lead == 0 && c.role == Follower && aloneIn(c.conf, c.id) && Index(c.log.applied) == c.commit
}

// ready returns what has to be done after everything that came in.
func (c *core) ready() *Work {
	for c.turn() {
	}
	if c.transferring {
		c.transferring = c.rn.BasicStatus().LeadTransferee != 0
	}
	return &c.work
}

// done gives the Work back.
func (c *core) done() { c.work.reset() }

func (c *core) turn() bool {
	if c.soloDue() {
		_ = c.rn.Campaign()
	}
	if plant.Here(plant.StaleRead) && !c.reads.idle() {
		c.work.finish(c.reads.round, c.commit, nil)
		c.reads.round = nil
	}
	if !c.reads.idle() && c.reads.firstID == 0 && c.mayRead() {
		c.rn.ReadIndex(c.reads.ask())
	}
	if !c.rn.HasReady() {
		return false
	}
	rd := c.rn.Ready()
	c.takeStates(&rd)
	c.sort(rd.Messages)
	return true
}

// sort puts the library's messages where they have to go.
//
// The library lets a candidate ask for votes before its own term is durable. It
// could then win by the votes of others, append, crash, forget the term, be
// voted for by the same members again, and append something else under the same
// term and index. So these questions wait for the write, as answers do.
func (c *core) sort(messages []*raftpb.Message) {
	w := &c.work
	var votes []*raftpb.Message
	for _, m := range messages {
		switch {
		case m.GetType() == raftpb.MsgVote && !plant.Here(plant.AskBeforeTerm):
			votes = append(votes, m)
		case m.GetTo() == raft.LocalAppendThread: // comes behind all votes
			m.Responses = append(m.Responses, votes...)
			votes = nil
			w.Append = append(w.Append, m)
		case m.GetTo() == raft.LocalApplyThread:
			w.Applies = append(w.Applies, c.apply(m))
		case m.GetType() == raftpb.MsgSnap:
			w.Snapshots = append(w.Snapshots, m)
		default:
			w.Send = append(w.Send, m)
		}
	}
	must.True(len(votes) == 0, "a candidate of term %d without a write", c.term)
}

func (c *core) takeStates(rd *raft.Ready) {
	if rd.HardState != nil && !raft.IsEmptyHardState(rd.HardState) {
		c.term, c.commit = Term(rd.HardState.GetTerm()), Index(rd.HardState.GetCommit())
	}
	for _, rs := range rd.ReadStates {
		if round := c.reads.answer(rs.RequestCtx); round != nil {
			c.work.finish(round, Index(rs.Index), nil)
		}
	}
	if rd.SoftState == nil {
		return
	}
	c.role = Role(rd.SoftState.RaftState)
	if lead := MemberID(rd.SoftState.Lead); lead != c.lead {
		if round := c.reads.abandon(); round != nil {
			c.work.finish(round, 0, ErrLeaderChanged)
		}
		c.lead = lead
		c.work.LeaderChanged = true
		if lead != 0 {
			c.heirs.follow(lead)
		}
	}
}

// apply turns a MsgStorageApply into the applier's form.
func (c *core) apply(m *raftpb.Message) Apply {
	a := Apply{answers: m.GetResponses()}
	if n := len(c.spare); n > 0 {
		a.Entries = c.spare[n-1]
		c.spare = c.spare[:n-1]
	} else {
		a.Entries = make([]Entry, 0, len(m.GetEntries()))
	}
	for _, e := range m.GetEntries() {
		kind := EntryKind(e.GetType())
		a.Entries = append(a.Entries, Entry{
			Index: Index(e.GetIndex()), Term: Term(e.GetTerm()), Kind: kind, Data: e.GetData(),
		})
		a.bytes += entryBytes(e)
		a.urgent = a.urgent || kind != EntryNormal
	}
	c.applyBytes += a.bytes
	a.urgent = a.urgent || c.applyBytes > c.applyMax/4
	return a
}
