package raft

import (
	"fmt"
	"sync"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kvorum/kvorum/internal/crash"
	"github.com/kvorum/kvorum/internal/must"
	"github.com/kvorum/kvorum/internal/plant"
)

// Log is the durable log of one member, driven by the writer alone. After an
// error it is never used again.
type Log interface {
	// Append writes entries, then hs if it is not nil, without a sync.
	Append(hs *raftpb.HardState, entries []*raftpb.Entry) error
	// AppendSnapshot records that everything up to the snapshot is in the state.
	AppendSnapshot(s *raftpb.SnapshotMetadata) error
	// WriteSnapFile makes a snapshot file durable, by itself. Any goroutine may
	// call it, beside the writer.
	WriteSnapFile(s *raftpb.Snapshot) error
	// Sync makes everything appended durable.
	Sync() error
	// Release says that entries up to index are no longer needed for a restart.
	Release(index uint64) error
}

// writeItem is one thing to write: a MsgStorageAppend of the core, or the
// record of a snapshot that the state machine took.
type writeItem struct {
	message *raftpb.Message
	taken   *raftpb.SnapshotMetadata
	done    chan struct{} // closed when taken is durable
}

func (it writeItem) bytes() int {
	n := entryOverheadBytes
	for _, e := range it.message.GetEntries() {
		n += entryBytes(e)
	}
	return n
}

// writer puts a batch of items into the log with one sync. It has no goroutine;
// writeQueue.run drives it in a node.
//
// Owned by the goroutine that drives it.
type writer struct {
	log        Log
	id         uint64
	term, vote uint64 // as last written
	commit     uint64 // as last written, never below snapshot
	snapshot   uint64 // highest index of a snapshot record
	released   uint64 // what the log was told of it

	hard    *raftpb.HardState // written with pending
	pending []*raftpb.Entry   // a run of entries without a gap, not yet given to the log
	answers []*raftpb.Message // to other members, once synced
}

func newWriter(id MemberID, log Log, start State) *writer {
	return &writer{
		log: log, id: uint64(id), snapshot: uint64(start.Snapshot.Index),
		term: start.HardState.GetTerm(), vote: start.HardState.GetVote(), commit: start.HardState.GetCommit(),
	}
}

// write makes the items durable and returns the answers for other members,
// which may be sent from now on; the core may now be told of the items. The
// slice returned is valid until the next write.
func (w *writer) write(items []writeItem) ([]*raftpb.Message, error) {
	clear(w.answers)
	w.answers = w.answers[:0]
	crash.Here("raftBeforeSave")
	mustSync, err := w.appendAll(items)
	if err != nil {
		return nil, fmt.Errorf("append to log: %w", err)
	}
	if mustSync {
		crash.Here("raft/before-sync")
		if err := w.log.Sync(); err != nil {
			return nil, fmt.Errorf("sync log: %w", err)
		}
	}
	crash.Here("raftAfterSave")
	if w.released < w.snapshot {
		if err := w.log.Release(w.snapshot); err != nil {
			return nil, fmt.Errorf("release log: %w", err)
		}
		w.released = w.snapshot
		crash.Here("raftAfterWALRelease")
	}
	return w.answers, nil
}

func (w *writer) appendAll(items []writeItem) (mustSync bool, err error) {
	for _, it := range items {
		sync, err := w.append(it)
		if err != nil {
			return false, err
		}
		mustSync = mustSync || sync
	}
	return mustSync, w.flush()
}

// append writes one item, or gathers it with the ones before it. A commit index
// that moved needs no sync: it is learned again after a crash.
func (w *writer) append(it writeItem) (mustSync bool, err error) {
	if it.taken != nil {
		return w.takeSnapshot(it.taken)
	}
	m := it.message
	if m.GetSnapshot() != nil {
		if err := w.receiveSnapshot(m); err != nil {
			return false, err
		}
		mustSync = true
	}
	if entries := m.GetEntries(); len(entries) > 0 {
		if n := len(w.pending); n > 0 && w.pending[n-1].GetIndex()+1 != entries[0].GetIndex() {
			if err := w.flush(); err != nil {
				return false, err
			}
		}
		w.pending = append(w.pending, entries...)
		mustSync = mustSync || !plant.Here(plant.AnswerUnsynced)
	}
	if m.GetTerm() != 0 || m.GetVote() != 0 || m.GetCommit() != 0 {
		decisive := m.GetTerm() != w.term || m.GetVote() != w.vote
		mustSync = mustSync || decisive && !plant.Here(plant.VoteUnsynced)
		w.term, w.vote, w.commit = m.GetTerm(), m.GetVote(), max(m.GetCommit(), w.covered())
		w.hard = w.hardState()
	}
	for _, answer := range m.GetResponses() {
		if answer.GetTo() != w.id {
			w.answers = append(w.answers, answer)
		}
	}
	return mustSync, nil
}

// takeSnapshot records a snapshot of this member's own state. One that was
// overtaken by a received snapshot is left out: a restart begins at the last
// record, and the entries between the two were never here.
func (w *writer) takeSnapshot(s *raftpb.SnapshotMetadata) (mustSync bool, err error) {
	if s.GetIndex() <= w.snapshot {
		return false, nil
	}
	if err := w.flush(); err != nil {
		return false, err
	}
	w.snapshot = s.GetIndex()
	return true, w.record(s)
}

// record writes the record of a snapshot, and a hard state that makes it count:
// a record above the commit index is ignored at a restart. What is in a
// snapshot was committed, also when the commit index was lost in a crash and
// the core has not learned it again; so no lower one is written from now on.
func (w *writer) record(s *raftpb.SnapshotMetadata) error {
	if err := w.log.AppendSnapshot(s); err != nil {
		return err
	}
	w.commit = max(w.commit, w.covered())
	return w.log.Append(w.hardState(), nil)
}

// covered is what no commit index may be written below.
func (w *writer) covered() uint64 {
	if plant.Here(plant.CommitBelowSnapshot) {
		return 0
	}
	return w.snapshot
}

func (w *writer) hardState() *raftpb.HardState {
	return &raftpb.HardState{Term: new(w.term), Vote: new(w.vote), Commit: new(w.commit)}
}

// receiveSnapshot writes the file before the record, so that a record never
// names a file that is not there. Entries come only after the hard state behind
// the record: with them and without a record that counts, the log would have a
// gap and could not be opened.
func (w *writer) receiveSnapshot(m *raftpb.Message) error {
	if err := w.flush(); err != nil {
		return err
	}
	meta := m.GetSnapshot().GetMetadata()
	must.True(meta.GetIndex() > w.snapshot, "snapshot %d behind %d", meta.GetIndex(), w.snapshot)
	w.snapshot = meta.GetIndex()
	crash.Here("raftBeforeSaveSnap")
	if err := w.log.WriteSnapFile(m.GetSnapshot()); err != nil {
		return err
	}
	crash.Here("raft/before-snapshot-record")
	w.term, w.vote = m.GetTerm(), m.GetVote()
	// The commit of m may speak of entries that come after, so it comes later.
	if err := w.record(meta); err != nil {
		return err
	}
	crash.Here("raftAfterSaveSnap")
	return nil
}

func (w *writer) flush() error {
	if len(w.pending) == 0 && w.hard == nil {
		return nil
	}
	err := w.log.Append(w.hard, w.pending)
	clear(w.pending)
	w.pending, w.hard = w.pending[:0], nil
	return err
}

// writeQueue hands items from the loop to the writer goroutine. Items are never
// dropped; the loop stops feeding the core when it grows too long.
type writeQueue struct {
	wake   chan struct{}
	closed chan struct{}

	mu         sync.Mutex
	items      []writeItem
	bytes      int    // queued or being written
	term, vote uint64 // as last put
	turns      uint64 // of writing, finished
	busy       bool   // one is under way
}

func newWriteQueue() *writeQueue {
	return &writeQueue{wake: make(chan struct{}, 1), closed: make(chan struct{})}
}

func (q *writeQueue) put(messages []*raftpb.Message, more ...writeItem) {
	if len(messages)+len(more) == 0 {
		return
	}
	urgent := len(more) > 0
	q.mu.Lock()
	for _, m := range messages {
		it := writeItem{message: m}
		q.items = append(q.items, it)
		q.bytes += it.bytes()
		urgent = q.mustWrite(m) || urgent
	}
	q.items = append(q.items, more...)
	q.mu.Unlock()
	if urgent {
		poke(q.wake)
	}
}

// mustWrite reports whether somebody waits for m to be written. A commit index
// that moved is for nobody: it goes with the next write, or with the next tick.
func (q *writeQueue) mustWrite(m *raftpb.Message) bool {
	moved := m.GetTerm() != 0 && (m.GetTerm() != q.term || m.GetVote() != q.vote)
	if moved {
		q.term, q.vote = m.GetTerm(), m.GetVote()
	}
	return moved || len(m.GetEntries()) > 0 || len(m.GetResponses()) > 0 || m.GetSnapshot() != nil
}

// tick has the writer write what is queued, if anything is.
func (q *writeQueue) tick() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) > 0 {
		poke(q.wake)
	}
}

func (q *writeQueue) backlogBytes() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}

// take swaps the queue for an empty one.
func (q *writeQueue) take(empty []writeItem) []writeItem {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items = empty
	q.busy = len(items) > 0
	return items
}

// progress is how many writes have finished, and whether one is under way.
func (q *writeQueue) progress() (finished uint64, busy bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.turns, q.busy
}

// close ends run, once all that was put before is written.
func (q *writeQueue) close() { close(q.closed) }

// run is the writer goroutine: drain, append, sync once, answer. It returns on
// the first failure: a log that failed once is not written again. At the end
// it writes what is left, so that after a clean stop the commit index on disk is
// not behind what was applied.
func (q *writeQueue) run(w *writer, t Transport, in *inbox) error {
	var items []writeItem
	for last := false; !last; {
		select {
		case <-q.closed:
			last = true
		case <-q.wake:
		}
		clear(items)
		if items = q.take(items[:0]); len(items) == 0 {
			continue
		}
		answers, err := w.write(items)
		if err != nil {
			return err
		}
		q.finished(items)
		in.written(items)
		if len(answers) > 0 {
			crash.Here("raftBeforeFollowerSend")
			t.Send(answers)
		}
	}
	return nil
}

// finished tells those who wait for an item, and makes room.
func (q *writeQueue) finished(items []writeItem) {
	size := 0
	for _, it := range items {
		if it.message != nil {
			size += it.bytes()
		} else {
			close(it.done)
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= size
	q.turns++
	q.busy = false
}

// poke wakes the reader of a signal channel; pokes before it wakes are one.
func poke(signal chan<- struct{}) {
	select {
	case signal <- struct{}{}:
	default:
	}
}
