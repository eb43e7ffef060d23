package raft

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kvorum/kvorum/internal/must"
)

// entryLog is the recent part of the durable log, in memory, as the library
// wants to read it (raft.Storage). An entry enters when the disk has it. Old
// entries leave once they are applied and the log is longer than members that
// lag a little need; a member that lags more gets a snapshot.
//
// Owned by the goroutine that drives the core; nothing here locks.
type entryLog struct {
	hardState *raftpb.HardState
	conf      *raftpb.ConfState // as of the last applied change

	// before is the position just below entries[0]: a snapshot, or the last
	// entry that was trimmed.
	before  position
	entries []*raftpb.Entry
	bytes   int

	applied uint64 // what trimming must not pass, and what a snapshot stands for

	catchUpEntries int
	bytesMax       int
}

type position struct{ index, term uint64 }

// entryOverheadBytes is about what an entry costs beside its data.
const entryOverheadBytes = 128

// slack is how far the log may grow past its limit before it is trimmed, so
// that trimming is paid once per so many entries.
func (l *entryLog) slack() int { return l.catchUpEntries/5 + 1 }

func newEntryLog(s State, catchUpEntries, bytesMax int) *entryLog {
	l := &entryLog{
		hardState:      s.HardState,
		conf:           s.Conf.Proto(),
		before:         position{uint64(s.Snapshot.Index), uint64(s.Snapshot.Term)},
		applied:        uint64(s.Snapshot.Index),
		catchUpEntries: catchUpEntries,
		bytesMax:       bytesMax,
	}
	l.append(s.Entries)
	return l
}

func entryBytes(e *raftpb.Entry) int { return len(e.GetData()) + entryOverheadBytes }

func (l *entryLog) last() uint64 { return l.before.index + uint64(len(l.entries)) }

// append puts entries at their index and drops whatever was there or above.
func (l *entryLog) append(entries []*raftpb.Entry) {
	if len(entries) == 0 {
		return
	}
	first := entries[0].GetIndex()
	if first <= l.before.index { // what is trimmed was applied, so it is the same
		skip := min(l.before.index+1-first, uint64(len(entries)))
		if entries = entries[skip:]; len(entries) == 0 {
			return
		}
		first = entries[0].GetIndex()
	}
	must.True(first <= l.last()+1, "entry %d appended to a log that ends at %d", first, l.last())
	keep := int(first - l.before.index - 1)
	for _, e := range l.entries[keep:] {
		l.bytes -= entryBytes(e)
	}
	if keep < len(l.entries) {
		// Slices handed out may share the tail: reallocate, do not overwrite.
		l.entries = l.entries[:keep:keep]
	}
	l.entries = append(l.entries, entries...)
	for _, e := range entries {
		l.bytes += entryBytes(e)
	}
}

// restore replaces the whole log by a snapshot.
func (l *entryLog) restore(m *raftpb.SnapshotMetadata) {
	l.before = position{m.GetIndex(), m.GetTerm()}
	l.entries, l.bytes = nil, 0
	l.conf = m.GetConfState()
	l.applied = max(l.applied, m.GetIndex())
}

// trim forgets applied entries that nobody is likely to ask for.
func (l *entryLog) trim(applied uint64) {
	l.applied = max(l.applied, applied)
	droppable := int(min(l.applied, l.last()) - l.before.index)
	drop, keep := 0, l.catchUpEntries
	if len(l.conf.GetVoters())+len(l.conf.GetLearners()) == 1 {
		keep = 0 // there is nobody to lag
	}
	if droppable > keep+l.slack() {
		drop = droppable - keep
	}
	if l.bytes > l.bytesMax+l.bytesMax/8 {
		left := l.bytes
		for i := 0; i < droppable && (i < drop || left > l.bytesMax); i++ {
			left -= entryBytes(l.entries[i])
			drop = max(drop, i+1)
		}
	}
	if drop > 0 {
		l.drop(drop)
	}
}

func (l *entryLog) drop(n int) {
	edge := l.entries[n-1]
	for _, e := range l.entries[:n] {
		l.bytes -= entryBytes(e)
	}
	l.before = position{edge.GetIndex(), edge.GetTerm()}
	// A fresh array, so that the dropped entries can be collected.
	l.entries = append(make([]*raftpb.Entry, 0, len(l.entries)-n+l.slack()), l.entries[n:]...)
}

// InitialState implements raft.Storage.
func (l *entryLog) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return l.hardState, l.conf, nil
}

// Entries implements raft.Storage.
func (l *entryLog) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	if lo <= l.before.index {
		return nil, raft.ErrCompacted
	}
	if hi > l.last()+1 {
		return nil, raft.ErrUnavailable
	}
	from, to := lo-l.before.index-1, hi-l.before.index-1
	size, end := uint64(0), from
	for ; end < to; end++ {
		size += uint64(entryWireBytes(l.entries[end]))
		if size > maxSize && end > from {
			break
		}
	}
	return l.entries[from:end:end], nil
}

// entryWireBytes is an upper bound of the encoded size of an entry, near
// enough for the library's limits and far cheaper than asking protobuf.
func entryWireBytes(e *raftpb.Entry) int { return len(e.GetData()) + 28 }

// Term implements raft.Storage.
func (l *entryLog) Term(i uint64) (uint64, error) {
	switch {
	case i < l.before.index:
		return 0, raft.ErrCompacted
	case i == l.before.index:
		return l.before.term, nil
	case i > l.last():
		return 0, raft.ErrUnavailable
	}
	return l.entries[i-l.before.index-1].GetTerm(), nil
}

// LastIndex implements raft.Storage.
func (l *entryLog) LastIndex() (uint64, error) { return l.last(), nil }

// FirstIndex implements raft.Storage.
func (l *entryLog) FirstIndex() (uint64, error) { return l.before.index + 1, nil }

// Snapshot implements raft.Storage. It says where a snapshot could be taken
// now; whoever sends the body replaces the position by that of the body, which
// is never lower.
func (l *entryLog) Snapshot() (*raftpb.Snapshot, error) {
	term, err := l.Term(l.applied)
	if err != nil {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		ConfState: l.conf, Index: new(l.applied), Term: new(term),
	}}, nil
}
