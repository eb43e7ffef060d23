package server

import (
	"path/filepath"
	"testing"

	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/server/state"
)

// If this fails, a member that crashed records a snapshot of an old position
// with the membership of a later one, and whoever starts from that record
// believes in members that were not there yet.
func TestNoSnapshotWhileEntriesComeAgain(t *testing.T) {
	store, err := mvcc.Open(filepath.Join(t.TempDir(), "db"), mvcc.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	machine, err := state.New(store, state.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(10) {
		machine.Apply(mvcc.Applied{Index: i + 1, Term: 1}, nil)
	}
	store.Publish()
	s := &Server{store: store, machine: machine, snapshots: make(chan takenSnapshot, 1)}
	s.cfg.SnapshotCount = 2
	a := &applier{Server: s}
	a.offerSnapshot(raft.Entry{Index: 9, Term: 1})
	if len(s.snapshots) != 0 {
		t.Fatal("a snapshot of entry 9 was offered with the state of entry 10")
	}
	a.offerSnapshot(raft.Entry{Index: 10, Term: 1})
	if len(s.snapshots) != 1 {
		t.Fatal("no snapshot was offered once the state was that of the entry")
	}
}
