package raft

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kvorum/kvorum/internal/must"
)

// Stepper is a member's core and log writer without the goroutines, clocks and
// queues of a [Node]: whoever holds it decides what happens next, and when.
// It is for simulations. Everything that goes in takes effect at the next Act.
//
// Owned by one goroutine.
type Stepper struct {
	cfg    Config
	core   *core
	writer *writer

	queue   []writeItem // for the writer
	written []writeItem // durable, the core does not know yet
	applies []Apply     // for the applier
	reads   map[*readRound]func(Index, error)
}

// NewStepper makes a member from what the disk says, as New does.
func NewStepper(cfg Config) (*Stepper, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	c, err := newCore(cfg)
	if err != nil {
		return nil, err
	}
	return &Stepper{
		cfg: cfg, core: c, writer: newWriter(cfg.ID, cfg.Log, cfg.Start),
		reads: map[*readRound]func(Index, error){},
	}, nil
}

// Act hands out the work that everything before has caused, as the loop of a
// node does: messages to Transport and Snapshots, the rest to the queues that
// Write and NextApply take from. It returns the entries that are newly known to
// be committed; the slice is valid until the next call.
func (s *Stepper) Act() (committed []Entry) {
	w := s.core.ready()
	for _, m := range w.Append {
		s.queue = append(s.queue, writeItem{message: m})
	}
	if len(w.Send) > 0 {
		s.cfg.Transport.Send(w.Send)
	}
	for _, m := range w.Snapshots {
		s.cfg.Snapshots.SendSnapshot(m)
	}
	for _, a := range w.Applies {
		committed = append(committed, a.Entries...)
		s.applies = merge(s.applies, a)
	}
	for i, round := range w.Reads {
		if done := s.reads[round]; done != nil {
			done(w.ReadIndex[i], w.ReadErr[i])
		}
		delete(s.reads, round)
	}
	s.core.done()
	return committed
}

// Tick lets one tick pass.
func (s *Stepper) Tick() { s.core.tick() }

// Step takes a message from another member.
func (s *Stepper) Step(m *Message) { s.core.step(m) }

// Propose offers commands to the log and returns how many were taken.
func (s *Stepper) Propose(commands ...[]byte) (taken int) {
	return s.ProposeIn(0, commands...)
}

// ProposeIn offers commands that count in one term, as Node.ProposeIn does, and
// returns how many were taken or dropped.
func (s *Stepper) ProposeIn(term Term, commands ...[]byte) (taken int) {
	if !s.core.canPropose() {
		return 0
	}
	ps := make([]proposal, len(commands))
	for i, data := range commands {
		ps[i] = proposal{data: data, kind: EntryNormal, term: term}
	}
	return s.core.propose(ps)
}

// ProposeConfChange offers a membership change and reports whether it was taken.
func (s *Stepper) ProposeConfChange(cc ConfChange) bool {
	data, err := cc.Encode()
	must.NoError(err, "encode conf change")
	return s.core.canPropose() && s.core.propose([]proposal{{data: data, kind: EntryConfChange}}) == 1
}

// ReadIndex asks how far a reader has to wait; a later Act calls done. It
// returns false, and does nothing, while an earlier question is out.
func (s *Stepper) ReadIndex(done func(Index, error)) bool {
	if !s.core.reads.idle() {
		return false
	}
	round := newReadRound()
	round.waiters.Add(1)
	s.reads[round] = done
	s.core.reads.start(round)
	return true
}

// SoloIndex is as Node.SoloIndex.
func (s *Stepper) SoloIndex() (Index, bool) {
	commit := s.core.soloCommit()
	return commit, commit != 0
}

// TransferLeader asks this leader to hand over, once.
func (s *Stepper) TransferLeader(to MemberID) {
	if s.core.role == Leader && has(s.core.conf.Voters, to) {
		s.core.transfer(to)
	}
}

// Unwritten is how many items wait for Write.
func (s *Stepper) Unwritten() int { return len(s.queue) }

// Write lets the writer take everything queued, make it durable with one sync
// and send the answers. After an error the member is over, as after that of
// Node.Run.
func (s *Stepper) Write() error {
	if len(s.queue) == 0 {
		return nil
	}
	items := s.queue
	s.queue = nil
	answers, err := s.writer.write(items)
	if err != nil {
		return err
	}
	if len(answers) > 0 {
		s.cfg.Transport.Send(answers)
	}
	s.written = append(s.written, items...)
	return nil
}

// TakeWritten tells the core what Write has made durable.
func (s *Stepper) TakeWritten() {
	for _, it := range s.written {
		if it.message != nil {
			s.core.appended(it.message)
		}
	}
	s.written = nil
}

// NextApply takes the applier's next work, which must be answered with Applied.
func (s *Stepper) NextApply() (Apply, bool) {
	if len(s.applies) == 0 {
		return Apply{}, false
	}
	a := s.applies[0]
	s.applies = s.applies[1:]
	return a, true
}

// Applied says that the applier is done with a.
func (s *Stepper) Applied(a Apply) { s.core.applied(a) }

// ApplyConfChange is as Node.ApplyConfChange.
func (s *Stepper) ApplyConfChange(cc *ConfChange) ConfState { return s.core.applyConfChange(cc) }

// SaveSnapshot is as Node.SaveSnapshot, but the record only joins the queue of
// Write.
func (s *Stepper) SaveSnapshot(meta SnapshotMeta, data []byte) error {
	snap := &raftpb.Snapshot{Data: data, Metadata: meta.proto()}
	if err := s.cfg.Log.WriteSnapFile(snap); err != nil {
		return err
	}
	s.queue = append(s.queue, writeItem{taken: snap.GetMetadata()})
	return nil
}

// ReportUnreachable is as Node.ReportUnreachable.
func (s *Stepper) ReportUnreachable(id MemberID) { s.core.rn.ReportUnreachable(uint64(id)) }

// ReportSnapshot is as Node.ReportSnapshot.
func (s *Stepper) ReportSnapshot(id MemberID, ok bool) {
	status := raft.SnapshotFinish
	if !ok {
		status = raft.SnapshotFailure
	}
	s.core.rn.ReportSnapshot(uint64(id), status)
}

// Status is the member's view now.
func (s *Stepper) Status() Status { return s.core.status() }

// Progress is the leader's knowledge of all members, by ID.
func (s *Stepper) Progress() []Progress { return s.core.progress() }
