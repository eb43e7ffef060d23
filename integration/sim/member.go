package sim

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/raft/wal"
	"github.com/kvorum/kvorum/raft/wal/memfs"
	"github.com/kvorum/kvorum/server"
	"github.com/kvorum/kvorum/server/state"
)

// member is a member and its disks.
type member struct {
	sim     *Sim
	id      raft.MemberID
	dir     string    // of the database, on the real file system
	fs      *memfs.FS // of the log and the .snap files; nil: never started
	disk    tracked   // what is known of the log on disk
	removed bool      // out of the cluster, for good
	slow    bool      // the disk hardly works at the moment
	stuck   bool      // the goroutines for leases do not get on at the moment
	pace    float64   // how fast its clock runs
	haste   float64   // how soon it starts again: chance per step
	*run              // nil: down
}

// run is one life of a member's process.
type run struct {
	log     *wal.Log
	store   *mvcc.Store
	machine *state.Machine
	node    *raft.Stepper
	links   map[raft.MemberID]bool

	// The applier's.
	batch       raft.Apply
	busy        bool // with batch
	pos         int  // entries of batch that are applied
	results     []applied
	handed      raft.Index // last entry that came, 0 none
	bootApplied uint64
	confIndex   uint64 // entry of the last membership change that was begun

	snapshotIndex uint64
	taken         *takenSnapshot
	sends         []*raft.Message                    // MsgSnap without a body
	waiting       map[uint64]*pb.InternalRaftRequest // proposed here; nil for membership changes
	reads         []pendingRead
	wrong         error // found while the core was at work
	voted         bool  // a vote or the question for one was sent since this was last asked

	received bool // a snapshot from the leader waits to be written

	nextTick time.Time
	leases   *server.LeaseClock
	due      []revoke // to be proposed
}

const (
	logDir  = "/member/wal"
	snapDir = "/member/snap"
)

// tracked is a Log that knows how far it is synced.
type tracked struct {
	*raft.DiskLog
	last, synced raft.Index
	owner        *member

	term, syncedTerm uint64 // of the hard state
	commit, snapshot uint64 // of the hard state; of the newest snapshot record
}

// Append implements raft.Log.
func (t *tracked) Append(hs *raftpb.HardState, entries []*raftpb.Entry) error {
	if n := len(entries); n > 0 {
		t.synced = min(t.synced, raft.Index(entries[0].GetIndex()-1))
		t.last = raft.Index(entries[n-1].GetIndex())
	}
	if hs != nil {
		t.term, t.commit = hs.GetTerm(), hs.GetCommit()
		if t.commit < t.snapshot {
			t.owner.wrong = fmt.Errorf("a restart would ignore the snapshot %d: the commit index behind it is %d", t.snapshot, t.commit)
		}
	}
	if err := t.owner.sim.matches(entries); err != nil {
		t.owner.wrong = err
	}
	return t.DiskLog.Append(hs, entries)
}

// matches checks that an entry is the same in every log that has its index and
// term.
func (s *Sim) matches(entries []*raftpb.Entry) error {
	for _, e := range entries {
		at := [2]uint64{e.GetIndex(), e.GetTerm()}
		digest := fnv.New64a()
		digest.Write([]byte{byte(e.GetType())})
		digest.Write(e.GetData())
		sum := digest.Sum64()
		if other, known := s.written[at]; known && other != sum {
			return fmt.Errorf("entry %d of term %d is %q here, and something else in another log", at[0], at[1], e.GetData())
		}
		s.written[at] = sum
	}
	return nil
}

// AppendSnapshot implements raft.Log.
func (t *tracked) AppendSnapshot(s *raftpb.SnapshotMetadata) error {
	t.last = max(t.last, raft.Index(s.GetIndex()))
	t.snapshot = max(t.snapshot, s.GetIndex())
	return t.DiskLog.AppendSnapshot(s)
}

// Sync implements raft.Log.
func (t *tracked) Sync() error {
	if err := t.DiskLog.Sync(); err != nil {
		return err
	}
	t.synced, t.syncedTerm = t.last, t.term
	return nil
}

// create makes the log of a member that starts for the first time.
func (m *member) create(start raft.State) error {
	m.dir = filepath.Join(m.sim.dir, fmt.Sprintf("m%d", m.id))
	m.fs = memfs.New()
	if err := errors.Join(os.MkdirAll(m.dir, 0o700), m.fs.MkdirAll("/member"), m.fs.SyncDir("/"),
		m.fs.MkdirAll(snapDir), m.fs.SyncDir("/member")); err != nil {
		return err
	}
	log, err := wal.Create(m.fs, logDir, fmt.Appendf(nil, "member %d", m.id))
	if err != nil {
		return err
	}
	if len(start.Entries) > 0 {
		if err := log.Append(start.HardState, start.Entries); err != nil {
			return err
		}
	}
	log.SetSegmentSize(1) // the first segment has room for millions of entries: leave it
	return errors.Join(log.Sync(), log.Close())
}

// comeUp starts a member that is down, or one that was added and never ran.
func (m *member) comeUp() error {
	if m.fs != nil {
		return m.start(nil)
	}
	truth := m.sim.truth.machine
	switch _, added := truth.Member(state.MemberID(m.id)); {
	case truth.IsRemoved(state.MemberID(m.id)):
		m.removed = true
		return nil
	case !added:
		return nil
	}
	if err := m.create(raft.State{}); err != nil {
		return err
	}
	return m.start(truth.Members())
}

// start is what the bootstrap of a server does with a directory that has a log.
func (m *member) start(remotes []state.Member) error {
	s := m.sim
	if !s.calm && s.chance(s.swarm.atStart) {
		m.fs.StopAt(1 + s.rng.IntN(60))
	} else {
		m.breakDisk(60)
	}
	err := m.boot()
	if broken(err) {
		return m.dead(err)
	}
	m.fs.FailAt(0, nil)
	if err != nil {
		return fmt.Errorf("member %d does not start: %w", m.id, err)
	}
	for _, r := range append(m.machine.Members(), remotes...) {
		if r.ID != state.MemberID(m.id) {
			m.links[raft.MemberID(r.ID)] = true
		}
	}
	if at := m.store.Applied().Index; at > 0 {
		if err := s.truth.checkConf(at, raftConf(m.machine.ConfState())); err != nil {
			return fmt.Errorf("member %d starts: %w", m.id, err)
		}
	}
	return m.act()
}

func (m *member) boot() error {
	m.run = &run{links: map[raft.MemberID]bool{}, waiting: map[uint64]*pb.InternalRaftRequest{}, leases: server.NewLeaseClock()}
	if _, err := wal.CleanSnapDir(m.fs, snapDir); err != nil {
		return err
	}
	if _, err := wal.CleanSnapDir(wal.OS(), m.dir); err != nil {
		return err
	}
	found, err := wal.ValidSnapshots(m.fs, logDir)
	if err != nil {
		return err
	}
	var at wal.Snapshot
	if len(found) > 0 {
		at = found[len(found)-1]
	}
	if err := m.openStoreAt(at.Index); err != nil {
		return err
	}
	start, err := m.openLog(at)
	if err != nil {
		return err
	}
	m.bootApplied = m.store.Applied().Index
	m.snapshotIndex = at.Index
	m.node, err = raft.NewStepper(raft.Config{
		ID: m.id, ElectionTicks: m.sim.election, HeartbeatTicks: 1, PreVote: m.sim.preVote, Start: start,
		Log: &m.disk, Transport: m, Snapshots: m, Rand: m.sim.src,
		CatchUpEntries: catchUpEntries, LogBytesMax: 1 << 20, ApplyBytesMax: 1 << 12, UncommittedBytesMax: 1 << 16,
	})
	return err
}

func (m *member) dbPath() string { return filepath.Join(m.dir, "db") }

func (m *member) openStore() (err error) {
	if m.store, err = mvcc.Open(m.dbPath(), storeOptions()); err != nil {
		return err
	}
	m.machine, err = state.New(m.store, state.Options{MinLeaseTTL: 2, MaxLearners: 2})
	return err
}

// storeOptions make everything small: what is flushed leaves memory soon, and
// compactions take many slices.
func storeOptions() mvcc.Options {
	return mvcc.Options{TailBytes: 2000, CompactionBatch: 5, MmapBytes: 4 << 20, NoSync: true}
}

// openStoreAt opens the database; one that is older than the log's snapshot is
// replaced by the one that the leader had sent with it.
func (m *member) openStoreAt(index uint64) error {
	if err := m.openStore(); err != nil {
		return err
	}
	if m.store.Applied().Index >= index {
		return nil
	}
	if err := m.store.Close(); err != nil {
		return err
	}
	path, err := wal.SnapDBPath(wal.OS(), m.dir, index)
	if err != nil {
		return fmt.Errorf("the log begins at a snapshot that the database lacks: %w", err)
	}
	if err := os.Rename(path, m.dbPath()); err != nil {
		return err
	}
	if err := m.openStore(); err != nil {
		return err
	}
	if at := m.store.Applied().Index; at < index {
		return fmt.Errorf("received database is of entry %d, the snapshot of %d", at, index)
	}
	return nil
}

func (m *member) openLog(at wal.Snapshot) (raft.State, error) {
	log, contents, err := wal.Open(m.fs, logDir, at)
	if err != nil {
		return raft.State{}, err
	}
	log.SetSegmentSize(20_000)
	m.log = log
	conf := raftConf(m.machine.ConfState())
	start := raft.State{
		HardState: contents.HardState, Entries: contents.Entries,
		Snapshot: raft.SnapshotMeta{Index: raft.Index(at.Index), Term: raft.Term(at.Term), Conf: conf},
		Conf:     conf, Applied: raft.Index(m.store.Applied().Index),
	}
	if start.Applied > start.Last() {
		return start, fmt.Errorf("the database holds entry %d, the log ends at %d", start.Applied, start.Last())
	}
	// Open syncs the tail, so what it has read is on disk.
	term := contents.HardState.GetTerm()
	m.disk = tracked{
		DiskLog: raft.NewDiskLogOn(m.fs, log, snapDir), last: start.Last(), synced: start.Last(), owner: m,
		term: term, syncedTerm: term, commit: contents.HardState.GetCommit(), snapshot: at.Index,
	}
	return start, nil
}

// crash ends the process, with power also what its disk had not synced. Of the
// database what was flushed survives.
func (m *member) crash(power bool) error {
	s := m.sim
	if power {
		m.fs.Crash(s.rng)
		s.counts.Crashes++
	} else {
		m.fs.Kill()
		s.counts.Kills++
	}
	store := m.store
	s.counts.Unknown += len(m.waiting)
	m.run = nil
	m.haste = pick(s.rng, s.swarm.haste...)
	if store == nil {
		return nil
	}
	data, err := os.ReadFile(m.dbPath())
	if err != nil {
		return err
	}
	_ = store.Close() // may flush, to a file that is replaced now
	return os.WriteFile(m.dbPath(), data, 0o600)
}

// errDisk is a disk that could not read, write or sync.
var errDisk = errors.New("input/output error")

// broken reports whether an error comes from a fault and not from the product.
func broken(err error) bool { return errors.Is(err, memfs.ErrCrashed) || errors.Is(err, errDisk) }

// dead handles the error of something that uses the disk: the machine is down,
// or the process has ended because of it.
func (m *member) dead(err error) error {
	switch {
	case errors.Is(err, memfs.ErrCrashed):
		return m.crash(true)
	case errors.Is(err, errDisk):
		m.sim.counts.DiskErrors++
		return m.crash(m.sim.chance(0.3))
	}
	return err
}

// breakDisk lets one of the next n file operations fail, now and then.
func (m *member) breakDisk(n int) {
	if s := m.sim; !s.calm && s.chance(s.swarm.ioError) {
		m.fs.FailAt(1+s.rng.IntN(n), errDisk)
	}
}

// stopRemoved stops a member that is out of the cluster.
func (m *member) stopRemoved() {
	m.removed = true
	m.sim.counts.Removed++
	_ = m.store.Close()
	m.run = nil
}

func (m *member) write() error {
	s := m.sim
	if m.slow && !s.chance(0.1) {
		return nil
	}
	if m.node.Unwritten() == 0 {
		return nil
	}
	if m.received && !s.calm && s.swarm.inSnapshot > 0 {
		if m.node.Unwritten() < 3 && s.chance(0.95) {
			return nil // so that entries come into one write with the snapshot
		}
		if m.received = false; s.chance(0.5) {
			m.fs.StopAt(3 + s.rng.IntN(8))
		}
	} else if !s.calm && s.chance(s.swarm.atWrite) {
		m.fs.StopAt(1 + s.rng.IntN(4)) // where a crash tells most
	} else {
		m.breakDisk(4)
	}
	if err := m.node.Write(); err != nil {
		return m.dead(err)
	}
	if !s.calm && s.chance(s.swarm.afterWrite) {
		return m.crash(true)
	}
	return nil
}

// voting crashes a member that has just voted or asked for votes: what it said
// must be what it remembers.
func (m *member) voting() error {
	voted := m.voted
	m.voted = false
	if s := m.sim; voted && !s.calm && s.chance(s.swarm.afterVote) {
		return m.crash(s.chance(s.swarm.power))
	}
	return nil
}

func (m *member) flush() error {
	m.sim.counts.Flushes++
	return m.store.Flush()
}

func (m *member) compact() error {
	if err := m.store.Flush(); err != nil {
		return err
	}
	m.sim.counts.Compactions++
	_, err := m.store.CompactSlice()
	return err
}

func (m *member) defragment() error {
	m.sim.counts.Defrags++
	return m.store.Defragment(context.Background())
}

// act hands out the work of the core and checks what must hold afterwards.
func (m *member) act() error {
	if m.run == nil {
		return nil
	}
	s := m.sim
	for _, e := range m.node.Act() {
		if err := s.truth.agree(s, e); err != nil {
			return err
		}
	}
	st := m.node.Status()
	s.note(uint64(st.Leader), uint64(st.Term), uint64(st.Commit), uint64(st.Last), uint64(st.Role))
	if st.Role == raft.Leader {
		// A member that was leader when it crashed cannot be it again in that term.
		other, known := s.leaders[st.Term]
		if known && other != m.run {
			return fmt.Errorf("member %d leads term %d, which had a leader before", m.id, st.Term)
		}
		if !known {
			s.leaders[st.Term], s.newest = m.run, max(s.newest, st.Term)
			s.counts.Elections++
		}
	}
	m.followLeader()
	if at := m.store.Flushed().Index; at > uint64(m.disk.synced) {
		return fmt.Errorf("entry %d is flushed, the log is synced to %d", at, m.disk.synced)
	}
	if err := m.wrong; err != nil {
		return err
	}
	return m.answerReads()
}

// purge deletes files that nobody needs.
func (m *member) purge() error {
	m.breakDisk(8)
	_, err1 := wal.Purge(m.fs, logDir, m.sim.keep)
	if err := m.dead(err1); err != nil || m.run == nil {
		return err
	}
	_, err1 = wal.PurgeSnaps(m.fs, snapDir, m.sim.keep)
	if err := m.dead(err1); err != nil || m.run == nil {
		return err
	}
	_, err := wal.RemoveSnapDBs(wal.OS(), m.dir, m.store.Flushed().Index)
	return err
}

// voters are the members that vote, as this one has applied it.
func (m *member) voters() []state.MemberID { return slices.Clone(m.machine.ConfState().Voters) }
