package wal_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/kvorum/kvorum/raft/wal"
	"github.com/kvorum/kvorum/raft/wal/memfs"
	"go.etcd.io/raft/v3/raftpb"
)

const walDir = "data/member/wal"

// deed is one thing that a member asked of its log, in order.
type deed struct {
	entry *raftpb.Entry
	state *raftpb.HardState
	snap  *wal.Snapshot
	// install: the snapshot came from the leader and replaces the log.
	install bool
}

// history is what a member asked of its log, and how much of it it was promised.
type history struct {
	deeds  []deed
	synced int // deeds that a successful Sync covered
	// promised: Create returned nil.
	promised bool
}

// image is what a log must hold after the first n deeds.
type image struct {
	entries []*raftpb.Entry // from index 1
	state   *raftpb.HardState
	snaps   []wal.Snapshot
	install uint64 // index of a snapshot from the leader that no commit covers yet
}

func (h *history) image(n int) image {
	m := image{snaps: []wal.Snapshot{{}}}
	for _, d := range h.deeds[:n] {
		switch {
		case d.entry != nil:
			m.entries = append(m.entries[:d.entry.GetIndex()-1], d.entry)
		case d.state != nil:
			m.state = d.state
			if m.install != 0 && m.install <= m.state.GetCommit() {
				m.entries, m.install = make([]*raftpb.Entry, m.install), 0
			}
		default:
			m.snaps = append(m.snaps, *d.snap)
			if d.install {
				m.install = d.snap.Index
			}
		}
	}
	return m
}

// start is the snapshot to open the log at: the last one not above commit.
func (m image) start() wal.Snapshot {
	for _, s := range slices.Backward(m.snaps) {
		if s.Index <= m.state.GetCommit() {
			return s
		}
	}
	return wal.Snapshot{}
}

// member drives a log with a seeded load.
type member struct {
	fs   wal.FS
	rnd  *rand.Rand
	hist *history
	log  *wal.Log

	term, commit, last, snapped uint64
	// unfinished is a snapshot from the leader whose installation a crash cut
	// short; the leader sends it again.
	unfinished *wal.Snapshot
}

// life creates a log and uses it for a while; it returns the first error.
func (m *member) life(steps int) (err error) {
	if err := m.fs.MkdirAll("data/member/snap"); err != nil {
		return err
	}
	for _, dir := range []string{".", "data", "data/member"} {
		if err := m.fs.SyncDir(dir); err != nil {
			return err
		}
	}
	if m.log, err = wal.Create(m.fs, walDir, goldenMetadata); err != nil {
		return err
	}
	m.hist.promised = true
	return m.work(steps)
}

func (m *member) work(steps int) error {
	m.log.SetSegmentSize(3000)
	if s := m.unfinished; s != nil {
		m.unfinished = nil
		m.term = max(m.term, s.Term)
		m.commit, m.last = s.Index, s.Index
		if err := m.snapshot(*s, true); err != nil {
			return err
		}
	}
	for range steps {
		if err := m.turn(); err != nil {
			return err
		}
	}
	return nil
}

// turn is one batch: entries, perhaps replacing the uncommitted end of the log,
// a hard state, now and then a snapshot with its cleaning up.
func (m *member) turn() error {
	if m.rnd.IntN(8) == 0 || m.term == 0 {
		m.term++
		if m.last > m.commit {
			m.last -= m.rnd.Uint64N(m.last - m.commit + 1)
		}
	}
	var entries []*raftpb.Entry
	for range m.rnd.IntN(5) {
		m.last++
		data := make([]byte, m.rnd.IntN(700))
		for i := range data {
			data[i] = byte(m.rnd.Uint32N(255) + 1)
		}
		e := newEntry(m.term, m.last, raftpb.EntryNormal, data)
		entries = append(entries, e)
		m.hist.deeds = append(m.hist.deeds, deed{entry: e})
	}
	m.commit += m.rnd.Uint64N(m.last - m.commit + 1)
	hs := newState(m.term, m.term%3, m.commit)
	m.hist.deeds = append(m.hist.deeds, deed{state: hs})
	if err := m.log.Append(hs, entries); err != nil {
		return err
	}
	if m.log.SyncNeeded() || m.rnd.IntN(2) == 0 {
		if err := m.sync(); err != nil {
			return err
		}
	}
	switch {
	case m.rnd.IntN(12) == 0:
		return m.install()
	case m.commit > m.snapped && m.rnd.IntN(6) == 0:
		image := m.hist.image(len(m.hist.deeds))
		if e := image.entries[m.commit-1]; e != nil {
			return m.snapshot(wal.Snapshot{Index: m.commit, Term: e.GetTerm(), ConfState: voters()}, false)
		}
	}
	return nil
}

func voters() *raftpb.ConfState { return &raftpb.ConfState{Voters: []uint64{1, 2, 3}} }

// install takes a snapshot from a leader of a newer term, at an index where the
// log has another entry or none.
func (m *member) install() error {
	m.term++
	m.hist.deeds = append(m.hist.deeds, deed{state: newState(m.term, m.term%3, m.commit)})
	if err := m.log.Append(newState(m.term, m.term%3, m.commit), nil); err != nil {
		return err
	}
	m.commit += 1 + m.rnd.Uint64N(10)
	m.last = m.commit
	s := wal.Snapshot{Index: m.commit, Term: m.term, ConfState: voters()}
	return m.snapshot(s, true)
}

func (m *member) sync() error {
	if err := m.log.Sync(); err != nil {
		return err
	}
	m.hist.synced = len(m.hist.deeds)
	return nil
}

func (m *member) snapshot(s wal.Snapshot, install bool) error {
	file := &raftpb.Snapshot{
		Data:     []byte("{}"),
		Metadata: &raftpb.SnapshotMetadata{Index: &s.Index, Term: &s.Term, ConfState: s.ConfState},
	}
	if err := wal.WriteSnapFile(m.fs, "data/member/snap", file); err != nil {
		return err
	}
	m.hist.deeds = append(m.hist.deeds, deed{snap: &s, install: install})
	if err := m.log.AppendSnapshot(s); err != nil {
		return err
	}
	if err := m.sync(); err != nil {
		return err
	}
	m.snapped = s.Index
	if install {
		hs := newState(m.term, m.term%3, m.commit)
		m.hist.deeds = append(m.hist.deeds, deed{state: hs})
		if err := m.log.Append(hs, nil); err != nil {
			return err
		}
		if !m.log.SyncNeeded() {
			return errors.New("a snapshot would be lost: no sync needed for the commit that covers it")
		}
		if err := m.sync(); err != nil {
			return err
		}
	}
	if err := m.log.Release(s.Index); err != nil {
		return err
	}
	if _, err := wal.Purge(m.fs, walDir, 1); err != nil {
		return err
	}
	_, err := wal.PurgeSnaps(m.fs, "data/member/snap", 2)
	return err
}

// recovered opens the log after a crash and checks that it holds the outcome of
// some number of deeds, not fewer than were synced. It returns that number and
// the open log.
func recovered(fs wal.FS, h *history) (int, *wal.Log, error) {
	if !wal.Exists(fs, walDir) {
		if h.promised {
			return 0, nil, errors.New("the log is gone")
		}
		return 0, nil, nil
	}
	snaps, err := wal.ValidSnapshots(fs, walDir)
	if err != nil {
		return 0, nil, err
	}
	at := snaps[len(snaps)-1]
	l, c, err := wal.Open(fs, walDir, at)
	if err != nil {
		return 0, nil, err
	}
	if h.promised || len(h.deeds) > 0 {
		if string(c.Metadata) != string(goldenMetadata) {
			return 0, nil, fmt.Errorf("metadata %x", c.Metadata)
		}
	}
	for n := len(h.deeds); n >= h.synced; n-- {
		m := h.image(n)
		if want := m.start(); want.Index != at.Index || want.Term != at.Term || uint64(len(m.entries)) < at.Index {
			continue
		}
		same := c.HardState.GetTerm() == m.state.GetTerm() && c.HardState.GetVote() == m.state.GetVote() &&
			c.HardState.GetCommit() == m.state.GetCommit()
		if same && sameEntries(c.Entries, m.entries[at.Index:]) {
			return n, l, nil
		}
	}
	return 0, nil, fmt.Errorf("log at snapshot %d holds %d entries and %v: not the outcome of %d to %d deeds",
		at.Index, len(c.Entries), c.HardState, h.synced, len(h.deeds))
}

// resume makes a member that goes on after n deeds survived.
func resume(fs wal.FS, rnd *rand.Rand, h *history, n int, l *wal.Log) *member {
	h.deeds, h.synced, h.promised = h.deeds[:n], n, true
	image := h.image(n)
	m := &member{
		fs: fs, rnd: rnd, hist: h, log: l, term: image.state.GetTerm(), commit: image.state.GetCommit(),
		last: uint64(len(image.entries)), snapped: image.snaps[len(image.snaps)-1].Index,
	}
	if image.install != 0 {
		m.unfinished = &image.snaps[len(image.snaps)-1]
	}
	return m
}

func testSeed(t *testing.T) uint64 {
	seed := rand.Uint64()
	if s := os.Getenv("KVORUM_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("replay: KVORUM_SEED=%d go test ./raft/wal -run '^%s$'", seed, t.Name())
	return seed
}

func rounds() int {
	if os.Getenv("KVORUM_LONG") != "" {
		return 100
	}
	return 2
}

func newRand(seed uint64, stream int) *rand.Rand { return rand.New(rand.NewPCG(seed, uint64(stream))) }

// If this fails, a power failure loses an acknowledged write, brings back one
// that was never made, or leaves a log that does not open.
func TestCrashAtEveryOperation(t *testing.T) {
	seed := testSeed(t)
	for round := range rounds() {
		for stop := 1; ; stop++ {
			fs := memfs.New()
			h := new(history)
			m := &member{fs: fs, rnd: newRand(seed, round), hist: h}
			fs.StopAt(stop)
			if err := m.life(40); err == nil {
				break
			} else if !errors.Is(err, memfs.ErrCrashed) {
				t.Fatalf("round %d: %v", round, err)
			}
			crashAndGoOn(t, fs, h, newRand(seed, 1_000_000*(round+1)+stop), fmt.Sprintf("round %d, stop %d", round, stop))
		}
	}
}

// crashAndGoOn crashes, recovers, crashes during the recovery, recovers again,
// works on, and checks once more.
func crashAndGoOn(t *testing.T, fs *memfs.FS, h *history, rnd *rand.Rand, where string) {
	t.Helper()
	tear := rnd
	if rnd.IntN(4) == 0 {
		tear = nil
	}
	fs.Crash(tear)
	fs.StopAt(1 + rnd.IntN(40))
	if n, l, err := recovered(fs, h); err == nil && l != nil {
		_ = resume(fs, rnd, h, n, l).work(5)
	}
	fs.Crash(tear)
	n, l, err := recovered(fs, h)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	if l == nil {
		m := &member{fs: fs, rnd: rnd, hist: new(history)}
		if err := m.life(1); err != nil {
			t.Fatalf("%s: start over: %v", where, err)
		}
		return
	}
	m := resume(fs, rnd, h, n, l)
	if err := m.work(5); err != nil {
		t.Fatalf("%s: work after recovery: %v", where, err)
	}
	if err := m.log.Close(); err != nil {
		t.Fatalf("%s: close: %v", where, err)
	}
	fs.Crash(nil)
	if n, _, err = recovered(fs, h); err != nil {
		t.Fatalf("%s: after close: %v", where, err)
	}
	if n < h.synced {
		t.Fatalf("%s: %d of %d deeds left", where, n, h.synced)
	}
}

// If this fails, a disk error is followed by writes that look durable and are
// not.
func TestErrorAtEveryOperation(t *testing.T) {
	seed := testSeed(t)
	broken := errors.New("input/output error")
	for round := range rounds() {
		for fail := 1; ; fail++ {
			fs := memfs.New()
			h := new(history)
			m := &member{fs: fs, rnd: newRand(seed, round), hist: h}
			fs.FailAt(fail, broken)
			err := m.life(30)
			if err == nil {
				break
			}
			if !errors.Is(err, broken) {
				t.Fatalf("fail %d: error does not say why: %v", fail, err)
			}
			if errors.Is(err, wal.ErrFailed) {
				refusesAll(t, m.log, err)
			}
			crashAndGoOn(t, fs, h, newRand(seed, 1_000_000*(round+1)+fail), fmt.Sprintf("round %d, fail %d", round, fail))
		}
	}
}

func refusesAll(t *testing.T, l *wal.Log, first error) {
	t.Helper()
	for name, err := range map[string]error{
		"append":   l.Append(newState(9, 9, 9), nil),
		"snapshot": l.AppendSnapshot(goldenSnapshot()),
		"sync":     l.Sync(),
		"release":  l.Release(5),
	} {
		if !errors.Is(err, wal.ErrFailed) {
			t.Fatalf("%s after %v: %v", name, first, err)
		}
	}
}
