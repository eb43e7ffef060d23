package wal

import (
	"bytes"
	"fmt"
)

// scan collects what follows a snapshot from the records of a log.
type scan struct {
	at        Snapshot
	contents  Contents
	found     bool   // the record of at was seen
	baseTerm  uint64 // of the last entry seen at the index of at; 0 none
	lastIndex uint64 // of the last entry in log order, or of a later snapshot
}

func newScan(at Snapshot) *scan { return &scan{at: at, lastIndex: at.Index} }

func (s *scan) add(rec record) (err error) {
	switch rec.kind {
	case kindEntry:
		return s.addEntry(rec.data)
	case kindState:
		s.contents.HardState, err = decodeState(rec.data)
		return err
	case kindMetadata:
		s.contents.Metadata, err = sameMetadata(s.contents.Metadata, rec.data)
		return err
	case kindSnapshot:
		return s.addSnapshot(rec.data)
	case kindCRC:
		return nil
	}
	return fmt.Errorf("unexpected block type %d", rec.kind)
}

// addEntry puts an entry at its place, dropping what an earlier leader had put
// there and after it. That holds for an entry below the snapshot too: what was
// appended above it before is gone, and bringing it back would give the log a
// last term that it never had, with which a member could win or grant a wrong
// election. (etcd skips such entries and brings the dropped ones back.)
func (s *scan) addEntry(data []byte) error {
	e, err := decodeEntry(data)
	if err != nil {
		return err
	}
	s.lastIndex = e.GetIndex()
	if e.GetIndex() <= s.at.Index {
		s.contents.Entries = s.contents.Entries[:0]
		s.baseTerm = 0
		if e.GetIndex() == s.at.Index {
			s.baseTerm = e.GetTerm()
		}
		return nil
	}
	have := uint64(len(s.contents.Entries))
	place := e.GetIndex() - s.at.Index - 1
	if place > have {
		return fmt.Errorf("%w, snapshot[Index: %d, Term: %d], current entry[Index: %d, Term: %d], len(ents): %d",
			ErrSliceOutOfRange, s.at.Index, s.at.Term, e.GetIndex(), e.GetTerm(), have)
	}
	s.contents.Entries = append(s.contents.Entries[:place], e)
	return nil
}

func (s *scan) addSnapshot(data []byte) error {
	snap, err := decodeSnapshot(data)
	if err != nil {
		return err
	}
	s.lastIndex = max(s.lastIndex, snap.Index)
	if snap.Index != s.at.Index {
		return nil
	}
	if snap.Term != s.at.Term {
		return ErrSnapshotMismatch
	}
	if !s.found && s.baseTerm != 0 && s.baseTerm != snap.Term {
		// The snapshot came from a leader because this log had diverged; raft
		// then dropped the whole log.
		s.contents.Entries = s.contents.Entries[:0]
	}
	s.found = true
	return nil
}

// complete checks that the log knew the snapshot. A log without the record of
// the empty snapshot is accepted, since etcd's restore tools make such logs.
func (s *scan) complete() error {
	if !s.found && s.at.Index != 0 {
		return ErrSnapshotNotFound
	}
	return nil
}

func sameMetadata(have, got []byte) ([]byte, error) {
	if have == nil {
		return append([]byte{}, got...), nil
	}
	if !bytes.Equal(have, got) {
		return nil, ErrMetadataConflict
	}
	return have, nil
}

// marks collects snapshot records and the last commit index.
type marks struct {
	snapshots []Snapshot
	commit    uint64
	metadata  []byte
}

func (m *marks) add(rec record) (err error) {
	switch rec.kind {
	case kindState:
		hs, err := decodeState(rec.data)
		m.commit = hs.GetCommit()
		return err
	case kindSnapshot:
		s, err := decodeSnapshot(rec.data)
		m.snapshots = append(m.snapshots, s)
		return err
	case kindMetadata:
		m.metadata, err = sameMetadata(m.metadata, rec.data)
		return err
	case kindEntry, kindCRC:
		return nil
	}
	return fmt.Errorf("unexpected block type %d", rec.kind)
}
