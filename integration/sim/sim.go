package sim

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/fnv"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"slices"
	"time"

	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/server/state"
)

// Counts say how much a run has exercised.
type Counts struct {
	Steps int
	// Operations and what came of them.
	Committed, Acked, Unknown, Reads, OldReads, Events, Resumes, Renewed, Expired int
	Elections, Conf, Removed, Received, Taken, Flushes, Compactions, Defrags      int
	// Faults.
	Crashes, Kills, DiskErrors, Lost, Repeated, Overtaken, Cuts, Islands, Storms, SlowDisks int
	// Comparisons of whole states.
	Checks int
}

// Add sums up.
func (c *Counts) Add(o Counts) {
	sum, more := reflect.ValueOf(c).Elem(), reflect.ValueOf(o)
	for i := range sum.NumField() {
		sum.Field(i).SetInt(sum.Field(i).Int() + more.Field(i).Int())
	}
}

// Sim is one cluster. It owns crypto/rand.Reader while it lives: the raft
// library draws its election timeouts there.
type Sim struct {
	src     *mrand.ChaCha8
	rng     *mrand.Rand
	dir     string
	truth   *truth
	members []*member // by id-1; a member that was never started has no disk
	net     network
	calm    bool // no faults any more

	swarm    swarm
	world    time.Duration // the time that passes for all
	preVote  bool
	election int  // ticks of an election timeout
	storm    bool // clocks run fast at the moment
	keep     int  // files of a kind that a purge leaves
	steps    int

	serial  uint64 // last request id
	leaders map[raft.Term]*run
	newest  raft.Term            // that had a leader
	written map[[2]uint64]uint64 // index and term: what some log has there
	floor   raft.Index           // acknowledged, or seen by a read that was answered
	trace   hash.Hash64
	counts  Counts

	asked    map[int64]bool // leases that a client has tried to make
	promises map[int64]*promise
	leases   [leasesKept]int64 // ids
	watchers []*watchClient
}

const (
	snapshotCount  = 20 // entries between two raft snapshots
	catchUpEntries = 10 // so that members that lag need snapshots
	membersMax     = 6  // at a time
)

// New makes the cluster of a seed. Its databases live below dir.
func New(seed uint64, dir string) (*Sim, error) {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	src := mrand.NewChaCha8(key)
	rand.Reader = src
	s := &Sim{
		src: src, rng: mrand.New(src), dir: dir,
		leaders: map[raft.Term]*run{}, written: map[[2]uint64]uint64{}, trace: fnv.New64a(),
		promises: map[int64]*promise{},
		asked:    map[int64]bool{},
	}
	s.net = network{sim: s, cut: map[[2]raft.MemberID]bool{}}
	s.swarm = drawSwarm(s.rng)
	s.preVote = s.chance(0.5)
	s.election = pick(s.rng, 3, 5, 10)
	s.keep = pick(s.rng, 1, 2, 5)
	s.steps = pick(s.rng, 4000, 8000, 16000)
	for i := range s.leases {
		s.leases[(leaseFirst+i)%leasesKept] = int64(leaseFirst + i)
	}
	for range 4 {
		s.watchers = append(s.watchers, s.newWatchClient())
	}
	var err error
	if s.truth, err = newTruth(filepath.Join(dir, "truth")); err != nil {
		return nil, err
	}
	return s, s.bootstrap(pick(s.rng, 1, 3, 3, 5))
}

// Close gives back files; the databases stay for their directory's owner.
func (s *Sim) Close() {
	for _, m := range s.members {
		if m.run != nil && m.store != nil {
			_ = m.store.Close()
		}
	}
	_ = s.truth.store.Close()
}

// Counts is what was exercised so far.
func (s *Sim) Counts() Counts {
	c := s.counts
	c.Committed = len(s.truth.entries)
	return c
}

// Trace is a hash of everything that has happened.
func (s *Sim) Trace() uint64 { return s.trace.Sum64() }

func (s *Sim) chance(p float64) bool { return s.rng.Float64() < p }

func pick[T any](rng *mrand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

// note adds to the trace.
func (s *Sim) note(numbers ...uint64) {
	var b [8]byte
	for _, n := range numbers {
		binary.LittleEndian.PutUint64(b[:], n)
		s.trace.Write(b[:])
	}
}

// bootstrap starts a new cluster.
func (s *Sim) bootstrap(size int) error {
	var changes []raft.ConfChange
	for i := range size {
		m := s.newMember()
		changes = append(changes, raft.ConfChange{
			Kind: raft.AddVoter, Member: raft.MemberID(i + 1), Context: state.MemberContext(stateMember(m.id, false)),
		})
	}
	start, err := raft.Bootstrap(changes)
	if err != nil {
		return err
	}
	for _, m := range s.members {
		if err := m.create(start); err != nil {
			return fmt.Errorf("create member %d: %w", m.id, err)
		}
		if err := m.start(nil); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sim) newMember() *member {
	m := &member{sim: s, id: raft.MemberID(len(s.members) + 1), haste: 0.05, pace: 1 + s.swarm.drift*(2*s.rng.Float64()-1)}
	s.members = append(s.members, m)
	return m
}

func stateMember(id raft.MemberID, learner bool) state.Member {
	return state.Member{ID: state.MemberID(id), PeerURLs: []string{fmt.Sprintf("http://m%d", id)}, IsLearner: learner}
}

// Run plays the whole life of the cluster and returns the first thing that is
// wrong.
func (s *Sim) Run() (err error) {
	step := 0
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("step %d: panic: %v\n%s", step, r, debug.Stack())
		}
	}()
	for ; step < s.steps; step++ {
		if step%400 == 0 {
			s.weather()
		}
		if err := s.step(); err != nil {
			return fmt.Errorf("step %d: %w\n%s", step, err, s.describe())
		}
		s.counts.Steps++
	}
	step = -1
	return s.heal()
}

// weather draws which links are down and whose disk is slow for a while.
func (s *Sim) weather() {
	clear(s.net.cut)
	s.net.late = pick(s.rng, s.swarm.late...)
	s.net.idle = pick(s.rng, 0, 0, 0.5)
	if s.storm = s.chance(s.swarm.storm); s.storm {
		s.counts.Storms++
	}
	for _, m := range s.members {
		if m.slow = s.chance(s.swarm.slow); m.slow {
			s.counts.SlowDisks++
		}
		m.stuck = s.chance(s.swarm.stall)
	}
	cuts, islands := s.chance(s.swarm.cuts), s.chance(s.swarm.islands)
	side := map[raft.MemberID]bool{}
	for _, m := range s.members {
		side[m.id] = s.chance(0.4)
	}
	for _, a := range s.members {
		for _, b := range s.members {
			if cuts && s.chance(0.25) || islands && side[a.id] != side[b.id] {
				s.net.cut[[2]raft.MemberID{a.id, b.id}] = true
			}
		}
	}
	if cuts {
		s.counts.Cuts++
	}
	if islands {
		s.counts.Islands++
	}
}

// step lets one thing happen.
func (s *Sim) step() error {
	s.pass()
	m := s.members[s.rng.IntN(len(s.members))]
	p := s.rng.Float64()
	s.note(uint64(m.id), uint64(p*1e9))
	if m.run == nil {
		if !m.removed && s.chance(m.haste) {
			return m.comeUp()
		}
		return s.net.deliver()
	}
	for _, do := range []func() error{func() error { return m.happen(p) }, m.voting, m.act, m.voting} {
		if err := do(); err != nil {
			return fmt.Errorf("member %d: %w", m.id, err)
		}
		if m.run == nil {
			return nil
		}
	}
	return nil
}

// happen is what can happen to a member that runs.
func (m *member) happen(p float64) error {
	s := m.sim
	m.ticks()
	if s.chance(s.swarm.disaster) {
		return s.disaster(m)
	}
	switch w := &s.swarm; {
	case s.chance(w.proposes):
		m.propose()
		return nil
	case s.chance(w.members):
		m.proposeMembers()
		return nil
	case s.chance(w.transfer):
		m.node.TransferLeader(raft.MemberID(1 + s.rng.IntN(len(s.members))))
		return nil
	}
	switch {
	case p < 0.43:
		return s.net.deliver()
	case p < 0.58:
		return m.write()
	case p < 0.66:
		m.node.TakeWritten()
	case p < 0.79:
		return m.apply()
	case p < 0.81:
		m.keep()
	case p < 0.83:
		m.expire()
	case p < 0.86:
		return s.watch(m)
	case p < 0.88:
		m.read()
	case p < 0.89:
		return m.readOld()
	case p < 0.91:
		return m.flush()
	case p < 0.925:
		return m.compact()
	case p < 0.945:
		return m.saveSnapshot()
	case p < 0.960:
		return m.sendSnapshot()
	case p < 0.965:
		return m.purge()
	case p < 0.967:
		return m.defragment()
	}
	return nil
}

// disaster crashes some members: the machine, the process, or the machine at
// one of its next file operations.
func (s *Sim) disaster(m *member) error {
	if s.chance(0.5) {
		m.fs.StopAt(1 + s.rng.IntN(12))
		return nil
	}
	down := []*member{m}
	if s.chance(0.3) {
		for _, other := range s.members {
			if other != m && other.run != nil && s.chance(0.6) {
				down = append(down, other)
			}
		}
	}
	power := s.chance(s.swarm.power)
	for _, m := range down {
		if err := m.crash(power); err != nil {
			return err
		}
	}
	return nil
}

// describe is the state of all members, for a failure.
func (s *Sim) describe() (out string) {
	out = fmt.Sprintf("committed %d, floor %d, keep %d, %+v\n", len(s.truth.entries), s.floor, s.keep, s.swarm)
	for _, m := range s.members {
		if m.run == nil || m.node == nil {
			out += fmt.Sprintf("member %d: down, started %v, removed %v\n", m.id, m.fs != nil, m.removed)
			continue
		}
		st := m.node.Status()
		out += fmt.Sprintf("member %d: %v of term %d, leader %d, commit %d, applied %d, flushed %d, last %d, synced %d, %+v; %+v\n", m.id, st.Role, st.Term,
			st.Leader, st.Commit, m.store.Applied().Index, m.store.Flushed().Index, st.Last, m.disk.synced, st.Conf, m.node.Progress())
	}
	return out
}

// heal ends all faults and waits until the cluster is even.
func (s *Sim) heal() error {
	s.calm, s.storm = true, false
	clear(s.net.cut)
	s.net.late, s.net.idle = 0.05, 0
	probe := uint64(0)
	for round := range 3000 {
		for _, m := range s.members {
			m.slow, m.stuck = false, false
			if err := m.calmRound(round); err != nil {
				return fmt.Errorf("after healing: member %d: %w\n%s", m.id, err, s.describe())
			}
			if m.run != nil && round%200 == 199 && m.node.Status().Role == raft.Leader {
				probe = m.put(fmt.Appendf(nil, "probe"), fmt.Appendf(nil, "%d", round))
			}
		}
		if probe != 0 && s.truth.acked[probe] && s.even() {
			return s.finalCheck()
		}
	}
	return fmt.Errorf("the cluster did not recover\n%s", s.describe())
}

// even reports whether all members have applied everything.
func (s *Sim) even() bool {
	last := uint64(len(s.truth.entries))
	for _, tm := range s.truth.machine.Members() {
		if tm.ID > state.MemberID(len(s.members)) {
			return false
		}
		m := s.members[tm.ID-1]
		if m.run == nil || m.store.Applied().Index != last {
			return false
		}
	}
	return true
}

func (s *Sim) finalCheck() error {
	for _, tm := range s.truth.machine.Members() {
		m := s.members[tm.ID-1]
		if err := m.checkHash(); err != nil {
			return fmt.Errorf("in the end: member %d: %w", m.id, err)
		}
		s.note(m.store.Applied().Index, uint64(m.store.Revision()))
	}
	if err := s.watchedAll(); err != nil {
		return err
	}
	for i := s.serial; i > 0; i-- {
		if index := s.truth.ackedAt[i]; index > uint64(len(s.truth.entries)) {
			return fmt.Errorf("request %d was acknowledged at %d, which nobody has", i, index)
		}
	}
	return nil
}

// calmRound lets everything happen that has to.
func (m *member) calmRound(round int) error {
	s := m.sim
	if m.run == nil {
		if m.removed {
			return nil
		}
		return m.comeUp()
	}
	s.pass()
	m.ticks()
	m.expire()
	for _, do := range []func() error{
		m.act, m.write, func() error { m.node.TakeWritten(); return nil }, m.act,
		m.apply, m.act, m.saveSnapshot, m.sendSnapshot,
	} {
		if err := do(); err != nil || m.run == nil {
			return err
		}
	}
	for range 2 * len(s.members) {
		if err := s.net.deliver(); err != nil {
			return err
		}
	}
	if round%50 == 0 && m.run != nil {
		if err := m.flush(); err != nil {
			return err
		}
		return m.compact()
	}
	return nil
}

// Dir makes a directory for a simulation, in memory if the machine has such a
// place.
func Dir() (string, error) {
	for _, parent := range []string{"/dev/shm", os.TempDir()} {
		if dir, err := os.MkdirTemp(parent, "kvorum-sim-"); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no directory for temporary files")
}

func raftConf(c state.ConfState) raft.ConfState {
	convert := func(ids []state.MemberID) []raft.MemberID {
		out := make([]raft.MemberID, len(ids))
		for i, id := range ids {
			out[i] = raft.MemberID(id)
		}
		return out
	}
	return raft.ConfState{Voters: convert(c.Voters), Learners: convert(c.Learners)}
}

func confText(c raft.ConfState) string {
	voters, learners := slices.Clone(c.Voters), slices.Clone(c.Learners)
	slices.Sort(voters)
	slices.Sort(learners)
	return fmt.Sprint(voters, learners)
}
