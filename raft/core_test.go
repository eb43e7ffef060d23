package raft

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

func testCore(t *testing.T, members int) (*core, *writer, *memLog) {
	t.Helper()
	start := bootstrap(t, members)
	for i := range members {
		start.Conf.Voters = append(start.Conf.Voters, MemberID(i+1))
	}
	start.Applied = Index(members)
	cfg := Config{ID: 1, Start: start, Log: &memLog{}, Transport: nowhere{}, Snapshots: nowhere{}, Rand: zeros{}, PreVote: true}
	if err := cfg.fill(); err != nil {
		t.Fatal(err)
	}
	c, err := newCore(cfg)
	if err != nil {
		t.Fatal(err)
	}
	log := &memLog{}
	return c, newWriter(1, log, start), log
}

// settle writes and applies until nothing is left to do; it returns what was
// sent to other members.
func settle(t *testing.T, c *core, w *writer) (sent []*raftpb.Message) {
	t.Helper()
	for {
		work := c.ready()
		sent = append(sent, work.Send...)
		var items []writeItem
		for _, m := range work.Append {
			items = append(items, writeItem{message: m})
		}
		applies := append([]Apply(nil), work.Applies...)
		c.done()
		if len(items)+len(applies) == 0 {
			return sent
		}
		answers, err := w.write(items)
		if err != nil {
			t.Fatal(err)
		}
		sent = append(sent, answers...)
		for _, it := range items {
			c.appended(it.message)
		}
		for _, a := range applies {
			c.applied(a)
		}
	}
}

func message(typ raftpb.MessageType, from, term uint64) *raftpb.Message {
	return &raftpb.Message{Type: typ.Enum(), From: new(from), To: new(uint64(1)), Term: new(term)}
}

// If this fails, a candidate that crashes can win the same term twice, and two
// members apply different commands at the same index.
func TestVotesAreAskedForAfterTheSync(t *testing.T) {
	c, w, log := testCore(t, 3)
	if err := c.rn.Campaign(); err != nil {
		t.Fatal(err)
	}
	settle(t, c, w) // asks for pre-votes
	c.step(message(raftpb.MsgPreVoteResp, 2, 2))
	work := c.ready()
	for _, m := range work.Send {
		if m.GetType() == raftpb.MsgVote {
			t.Fatal("MsgVote leaves before the candidate's term is durable")
		}
	}
	items := []writeItem{{message: work.Append[0]}}
	c.done()
	syncs := log.syncs
	answers, err := w.write(items)
	if err != nil {
		t.Fatal(err)
	}
	if log.syncs != syncs+1 || log.hs.GetTerm() != 2 || log.hs.GetVote() != 1 {
		t.Fatalf("syncs %d, hard state %v", log.syncs-syncs, log.hs)
	}
	votes := 0
	for _, m := range answers {
		if m.GetType() == raftpb.MsgVote {
			votes++
		}
	}
	if votes != 2 {
		t.Fatalf("%d votes asked for after the sync, want 2", votes)
	}
}

// If this fails, a put on a follower costs a second sync for its commit index.
func TestCommitAloneIsNotSynced(t *testing.T) {
	c, w, log := testCore(t, 3)
	app := message(raftpb.MsgApp, 2, 2)
	app.Index, app.LogTerm, app.Commit = new(uint64(3)), new(uint64(1)), new(uint64(3))
	app.Entries = []*raftpb.Entry{{Index: new(uint64(4)), Term: new(uint64(2)), Data: []byte("a")}}
	c.step(app)
	settle(t, c, w)
	syncs := log.syncs
	commit := message(raftpb.MsgApp, 2, 2)
	commit.Index, commit.LogTerm, commit.Commit = new(uint64(4)), new(uint64(2)), new(uint64(4))
	c.step(commit)
	settle(t, c, w)
	if c.commit != 4 || log.hs.GetCommit() != 4 {
		t.Fatalf("commit %d, on disk %d, want 4", c.commit, log.hs.GetCommit())
	}
	if log.syncs != syncs {
		t.Fatalf("%d syncs for a commit index", log.syncs-syncs)
	}
}

// If this fails, N queued proposals make N messages per follower.
func TestProposalsOfOneTurnShareAMessage(t *testing.T) {
	c, w, _ := testCore(t, 3)
	if err := c.rn.Campaign(); err != nil {
		t.Fatal(err)
	}
	settle(t, c, w)
	c.step(message(raftpb.MsgPreVoteResp, 2, 2))
	settle(t, c, w)
	c.step(message(raftpb.MsgVoteResp, 2, 2))
	settle(t, c, w)
	ok := message(raftpb.MsgAppResp, 2, 2)
	ok.Index = new(uint64(4))
	c.step(ok)
	settle(t, c, w)
	ps := make([]proposal, 100)
	for i := range ps {
		ps[i].data = []byte("x")
	}
	if taken := c.propose(ps); taken != len(ps) {
		t.Fatalf("%d taken", taken)
	}
	appends := 0
	for _, m := range settle(t, c, w) {
		if m.GetType() == raftpb.MsgApp && m.GetTo() == 2 {
			appends++
		}
	}
	if appends != 1 {
		t.Fatalf("%d append messages to one follower, want 1", appends)
	}
}

// If this fails, a leader of one voter answers reads before it knows what the
// leader before it had committed.
func TestSoloReadNeedsACommitInTheTerm(t *testing.T) {
	c, w, _ := testCore(t, 1)
	var unwritten []*raftpb.Message // ends with the leader's first entry
	for c.role != Leader {
		unwritten = write(t, c, w, unwritten)
	}
	round := newReadRound()
	round.waiters.Add(1)
	c.reads.start(round)
	forwarded := message(raftpb.MsgReadIndex, 9, 0)
	forwarded.Entries = []*raftpb.Entry{{Data: []byte("ctx")}}
	c.step(forwarded)
	if work := c.ready(); c.soloCommit() != 0 || len(work.Reads)+len(work.Send) > 0 {
		t.Fatalf("read answered before a commit in the term: %d, %v", c.soloCommit(), work)
	}
	write(t, c, w, unwritten)
	if c.soloCommit() != 2 || !c.reads.idle() {
		t.Fatalf("solo commit %d after the first commit, want 2; read answered: %v", c.soloCommit(), c.reads.idle())
	}
}

// write makes messages durable, tells the core, and returns what it wants to
// have written next.
func write(t *testing.T, c *core, w *writer, messages []*raftpb.Message) []*raftpb.Message {
	t.Helper()
	var items []writeItem
	for _, m := range messages {
		items = append(items, writeItem{message: m})
	}
	if _, err := w.write(items); err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		c.appended(m)
	}
	next := append([]*raftpb.Message(nil), c.ready().Append...)
	c.done()
	return next
}

func entries(from, to, term uint64) (es []*raftpb.Entry) {
	for i := from; i <= to; i++ {
		es = append(es, &raftpb.Entry{Index: new(i), Term: new(term), Data: make([]byte, 100)})
	}
	return es
}

// If this fails, the memory of a member grows with its log, or a member that
// lags a little needs a whole snapshot.
func TestEntryLogTrimsWhatIsApplied(t *testing.T) {
	for _, tt := range []struct {
		name                          string
		catchUp, bytesMax             int
		applied, firstMin, firstAtMax uint64
		members                       []MemberID
	}{
		{"nothing applied", 50, 1 << 20, 0, 1, 1, []MemberID{1, 2, 3}},
		{"keeps what members may lag", 50, 1 << 20, 1000, 890, 951, []MemberID{1, 2, 3}},
		{"never what is not applied", 50, 1, 400, 390, 401, []MemberID{1, 2, 3}},
		{"bounded by bytes", 5000, 100 * 228, 1000, 880, 1001, []MemberID{1, 2, 3}},
		{"nobody to lag", 500, 1 << 20, 1000, 900, 1001, []MemberID{1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			start := State{Entries: entries(1, 1000, 1), Conf: ConfState{Voters: tt.members}}
			l := newEntryLog(start, tt.catchUp, tt.bytesMax)
			l.trim(tt.applied)
			first, _ := l.FirstIndex()
			if first < tt.firstMin || first > tt.firstAtMax {
				t.Fatalf("first index %d, want %d..%d", first, tt.firstMin, tt.firstAtMax)
			}
			if _, err := l.Entries(first, 1001, 1<<30); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Entries(first-1, 1001, 1<<30); !errors.Is(err, raft.ErrCompacted) {
				t.Fatalf("below the first: %v", err)
			}
			if term, err := l.Term(first - 1); err != nil || term != min(1, first-1) {
				t.Fatalf("term below the first: %d, %v", term, err)
			}
			if l.bytes != len(l.entries)*228 {
				t.Fatalf("%d bytes counted for %d entries", l.bytes, len(l.entries))
			}
		})
	}
}

// If this fails, entries that a new leader replaced come back, or entries that
// were handed out change under their reader.
func TestEntryLogReplacesTheTail(t *testing.T) {
	l := newEntryLog(State{Entries: entries(1, 10, 1)}, 50, 1<<20)
	before, err := l.Entries(1, 11, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	l.append(entries(5, 6, 2))
	if last, _ := l.LastIndex(); last != 6 || l.bytes != 6*228 {
		t.Fatalf("last %d, %d bytes", last, l.bytes)
	}
	if before[4].GetTerm() != 1 {
		t.Fatal("a slice handed out before was overwritten")
	}
	if term, _ := l.Term(5); term != 2 {
		t.Fatalf("term %d at 5", term)
	}
	some, err := l.Entries(1, 7, 2*128)
	if err != nil || len(some) != 2 {
		t.Fatalf("%d entries for 2 entries' bytes, %v", len(some), err)
	}
}

// If this fails, an answer to an old question serves a stale read, or a read
// hangs although its answer came.
func TestReadRoundIDs(t *testing.T) {
	r := readRounds{nonce: 7, retryTicks: 2}
	seen := map[string]bool{}
	var old [][]byte
	for range 3 {
		round := newReadRound()
		round.waiters.Add(1)
		r.start(round)
		for _, ctx := range old {
			if r.answer(ctx) != nil {
				t.Fatal("an answer of a round before was taken")
			}
		}
		a := r.ask()
		if r.tick() || !r.tick() {
			t.Fatal("want to be asked again after two ticks")
		}
		b := r.ask()
		for _, ctx := range [][]byte{a, b} {
			if seen[string(ctx)] {
				t.Fatal("id used twice")
			}
			seen[string(ctx)] = true
		}
		for _, bad := range [][]byte{nil, a[:8], bytes.Repeat([]byte{1}, 16)} {
			if r.answer(bad) != nil {
				t.Fatalf("answer to %x taken", bad)
			}
		}
		for _, ctx := range old {
			if r.answer(ctx) != nil {
				t.Fatal("an answer of a round before was taken for one of this round")
			}
		}
		if r.answer(a) != round { // the slow answer to the first question will do
			t.Fatal("own answer not taken")
		}
		if r.answer(b) != nil {
			t.Fatal("answered twice")
		}
		old = append(old, a, b)
	}
}

// If this fails, a restart begins at a snapshot record that has a gap behind it.
func TestOvertakenSnapshotIsNotRecorded(t *testing.T) {
	log := &memLog{}
	w := newWriter(1, log, State{})
	received := &raftpb.Message{
		Term: new(uint64(2)), Vote: new(uint64(0)), Commit: new(uint64(60)),
		Snapshot: &raftpb.Snapshot{Metadata: SnapshotMeta{Index: 50, Term: 2}.proto()},
		Entries:  entries(51, 60, 2),
	}
	own := writeItem{taken: SnapshotMeta{Index: 40, Term: 1}.proto()}
	if _, err := w.write([]writeItem{{message: received}, own}); err != nil {
		t.Fatal(err)
	}
	if len(log.snapshots) != 1 || log.snapshots[0].GetIndex() != 50 || log.released != 50 {
		t.Fatalf("records %v, released %d", log.snapshots, log.released)
	}
	if log.hs.GetCommit() != 60 || len(log.entries) != 10 || log.syncs != 1 {
		t.Fatalf("hard state %v, %d entries, %d syncs", log.hs, len(log.entries), log.syncs)
	}
}

// If this fails, a snapshot taken soon after a crash releases a log that the
// next start still needs.
func TestSnapshotAboveTheSavedCommitCounts(t *testing.T) {
	log := &memLog{}
	start := State{HardState: &raftpb.HardState{Term: new(uint64(1)), Vote: new(uint64(0)), Commit: new(uint64(30))}}
	w := newWriter(1, log, start)
	if _, err := w.write([]writeItem{{taken: SnapshotMeta{Index: 40, Term: 1}.proto()}}); err != nil {
		t.Fatal(err)
	}
	if log.hs.GetCommit() != 40 || log.syncs != 1 || log.released != 40 {
		t.Fatalf("hard state %v, %d syncs, released %d", log.hs, log.syncs, log.released)
	}
	late := &raftpb.Message{Term: new(uint64(1)), Vote: new(uint64(0)), Commit: new(uint64(35))}
	if _, err := w.write([]writeItem{{message: late}}); err != nil {
		t.Fatal(err)
	}
	if log.hs.GetCommit() != 40 {
		t.Fatalf("commit on disk went back to %d", log.hs.GetCommit())
	}
}

// If this fails, a member with a damaged directory dies with a stack trace, or
// starts.
func TestBadLogIsRefused(t *testing.T) {
	hs := func(commit uint64) *raftpb.HardState {
		return &raftpb.HardState{Term: new(uint64(1)), Vote: new(uint64(0)), Commit: new(commit)}
	}
	for name, s := range map[string]State{
		"commit above the log":      {HardState: hs(11), Entries: entries(1, 10, 1)},
		"commit below the snapshot": {HardState: hs(4), Snapshot: SnapshotMeta{Index: 5, Term: 1}},
		"gap after the snapshot":    {HardState: hs(8), Snapshot: SnapshotMeta{Index: 5, Term: 1}, Entries: entries(7, 8, 1)},
		"gap within":                {HardState: hs(1), Entries: append(entries(1, 1, 1), entries(3, 3, 1)...)},
	} {
		_, err := New(Config{ID: 1, Log: &memLog{}, Start: s, Transport: nowhere{}, Snapshots: nowhere{}, Rand: zeros{}})
		if !errors.Is(err, ErrBadLog) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func withEntry(m *raftpb.Message, kind raftpb.EntryType, index uint64, data string) *raftpb.Message {
	m.Entries = append(m.Entries, &raftpb.Entry{Type: kind.Enum(), Term: m.Term, Index: new(index), Data: []byte(data)})
	return m
}

// If this fails, another member can forge what this member's disk says, or end
// its process with a message that no member sends.
func TestForgedMessagesAreRefused(t *testing.T) {
	n, err := New(Config{ID: 1, Log: &memLog{}, Start: bootstrap(t, 3), Transport: nowhere{}, Snapshots: nowhere{}, Rand: zeros{}})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*raftpb.Message{
		message(raftpb.MsgHup, 2, 0),
		message(raftpb.MsgStorageAppendResp, raft.LocalAppendThread, 1),
		message(raftpb.MsgStorageApplyResp, 2, 0),
		message(raftpb.MsgAppResp, raft.LocalApplyThread, 1),
		message(raftpb.MsgAppResp, 1, 1),
		message(raftpb.MsgProp, 2, 0),
		message(raftpb.MsgReadIndex, 2, 0),
		message(raftpb.MsgHeartbeat, 2, 0),
		message(raftpb.MsgSnap, 2, 1),
		withEntry(message(raftpb.MsgProp, 2, 0), raftpb.EntryConfChange, 0, "\xff"),
		withEntry(message(raftpb.MsgProp, 2, 0), raftpb.EntryConfChange, 0, "\x10\x09"),
		withEntry(message(raftpb.MsgProp, 2, 0), raftpb.EntryConfChangeV2, 0, ""),
		withEntry(message(raftpb.MsgApp, 2, 1), raftpb.EntryNormal, 7, ""),
	} {
		if err := n.Step(t.Context(), m); !errors.Is(err, ErrBadMessage) {
			t.Errorf("%v from %x: %v", m.GetType(), m.GetFrom(), err)
		}
	}
}

// If this fails, members of a mixed cluster do not understand each other's
// membership changes.
func TestConfChangeEncoding(t *testing.T) {
	for _, cc := range []ConfChange{
		{ID: 5, Kind: AddVoter, Member: 7, Context: []byte(`{"id":7}`)},
		{Kind: RemoveMember, Member: 1 << 63},
		{ID: 1, Kind: AddLearner, Member: 2},
		{ID: 1, Kind: UpdateMember, Member: 2, Context: []byte("x")},
	} {
		data, err := cc.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeConfChange(data)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(cc) {
			t.Errorf("%+v came back as %+v, %v", cc, got, err)
		}
	}
	if _, err := DecodeConfChange([]byte{0xff}); err == nil {
		t.Error("garbage decoded")
	}
}

// If this fails, a healthy member fills the operator's log.
func TestLibraryTalkIsForDebugging(t *testing.T) {
	var out strings.Builder
	l := libraryLogger{slog.New(slog.NewTextHandler(&out, nil))}
	l.Infof("%x became leader", 1)
	l.Warningf("%x appending new entries to log would exceed uncommitted entry size limit; dropping proposal", 1)
	if out.Len() > 0 {
		t.Fatalf("said %q", out.String())
	}
	l.Warningf("%x stepped down", 1)
	if !strings.Contains(out.String(), "level=WARN") {
		t.Fatalf("said %q", out.String())
	}
}
