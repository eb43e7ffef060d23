package raft

import (
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

// If this fails, a cluster whose members crash and whose network misbehaves
// loses or changes a write that a client was told is safe, or answers a read
// with old data.
func TestSimulatedClusters(t *testing.T) {
	keepRandom(t)
	runs, steps := 80, 6000
	if os.Getenv("KVORUM_LONG") != "" {
		runs, steps = 1000, 20000
	}
	first := mrand.Uint64() % 1e9
	if s := os.Getenv("KVORUM_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("KVORUM_SEED: %v", err)
		}
		first, runs = n, 1
	}
	var total simCounts
	for seed := first; seed < first+uint64(runs); seed++ {
		s := newSim(seed)
		if err := s.run(steps); err != nil {
			t.Fatalf("%v\nreplay: KVORUM_LONG=%s KVORUM_SEED=%d go test ./raft -run TestSimulatedClusters", err, os.Getenv("KVORUM_LONG"), seed)
		}
		total.add(s.counts)
	}
	t.Logf("seeds %d..%d: %+v", first, first+uint64(runs)-1, total)
	if runs > 10 && (total.Crashes < 500 || total.Acked < 1000 || total.Reads < 500 || total.Snapshots < 20 || total.ConfChanges < 20) {
		t.Fatalf("the simulation did not exercise what it is for: %+v", total)
	}
}

// If this fails, a failing seed cannot be replayed.
func TestSimulationIsDeterministic(t *testing.T) {
	keepRandom(t)
	seed := mrand.Uint64() % 1e9
	a := newSim(seed)
	errA := a.run(3000)
	b := newSim(seed)
	if err := errors.Join(errA, b.run(3000)); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	if a.counts != b.counts || !slices.Equal(a.committed, b.committed) {
		t.Fatalf("seed %d: two runs differ: %+v, %+v", seed, a.counts, b.counts)
	}
}

// keepRandom gives the process its randomness back after a simulation.
func keepRandom(t *testing.T) {
	real := rand.Reader
	t.Cleanup(func() { rand.Reader = real })
}

type simCounts struct {
	Crashes, Elections, Committed, Acked, Reads, Snapshots, ConfChanges, Syncs int
}

func (c *simCounts) add(o simCounts) {
	c.Crashes += o.Crashes
	c.Elections += o.Elections
	c.Committed += o.Committed
	c.Acked += o.Acked
	c.Reads += o.Reads
	c.Snapshots += o.Snapshots
	c.ConfChanges += o.ConfChanges
	c.Syncs += o.Syncs
}

// sim is a cluster played by one goroutine: every step picks one thing that
// could happen next, lets it happen, and checks what must always hold.
type sim struct {
	src    *mrand.ChaCha8
	rng    *mrand.Rand
	nodes  []*simNode // by ID-1; nil: not yet born
	born   int
	net    []*raftpb.Message
	cut    map[[2]MemberID]bool
	calm   bool    // no faults any more
	files  bool    // logs are files of package wal
	faults float64 // how often things break, 1 is very often
	serial int

	committed []simEntry // what any member knows as committed; [i] has index i+1
	leaders   map[Term]MemberID
	acked     map[string]Index
	ackedMax  Index
	counts    simCounts
}

// simEntry is comparable: what two members must agree on.
type simEntry struct {
	term uint64
	data string
}

type simNode struct {
	s        *sim
	id       MemberID
	*Stepper // nil: down
	disk     simDisk
	bodies   []simState      // snapshots received, durable
	pending  map[string]bool // proposed here, not yet acknowledged
	stale    error           // a read that was answered with old data
	removed  bool

	state   simState // in memory
	flushed simState // survives a crash
}

// simState is the applied state: the prefix of the committed log up to index.
type simState struct {
	index Index
	term  Term
	conf  ConfState
	gone  string // members ever removed, as digits: they may not come back
}

const simPool = 7

func newSim(seed uint64) *sim {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	src := mrand.NewChaCha8(key)
	rand.Reader = src // the library draws its election timeouts here
	s := &sim{
		src: src, rng: mrand.New(src), cut: map[[2]MemberID]bool{},
		leaders: map[Term]MemberID{}, acked: map[string]Index{}, nodes: make([]*simNode, simPool),
	}
	s.files = seed%4 == 0
	s.faults = []float64{0.1, 0.3, 1}[s.rng.IntN(3)]
	s.born = []int{1, 3, 3, 5}[s.rng.IntN(4)]
	var changes []ConfChange
	for id := range s.born {
		changes = append(changes, ConfChange{Kind: AddVoter, Member: MemberID(id + 1)})
	}
	start, err := Bootstrap(changes)
	if err != nil {
		panic(err)
	}
	for id := range s.born {
		n := s.newNode(MemberID(id+1), start)
		if err := n.start(); err != nil {
			panic(err)
		}
	}
	return s
}

// newNode makes a member with an empty log, or one that begins with start. One
// cluster in four keeps its logs in the real files.
func (s *sim) newNode(id MemberID, start State) *simNode {
	n := &simNode{s: s, id: id}
	if s.files {
		n.disk = newFileDisk(s)
	} else {
		n.disk = &listDisk{s: s}
	}
	if len(start.Entries) > 0 {
		calm := s.calm
		s.calm = true
		if err := errors.Join(n.disk.Append(start.HardState, start.Entries), n.disk.Sync()); err != nil {
			panic(err)
		}
		s.calm = calm
	}
	s.nodes[id-1] = n
	return n
}

func (n *simNode) body(at SnapshotMeta) simState {
	for _, b := range n.bodies {
		if b.index == at.Index && b.term == at.Term {
			return b
		}
	}
	return simState{}
}

func (s *sim) chance(p float64) bool { return s.rng.Float64() < p }

func (s *sim) run(steps int) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	for i := range steps {
		if i%400 == 0 {
			s.partition()
		}
		if err := s.step(); err != nil {
			return fmt.Errorf("seed step %d: %w", i, err)
		}
	}
	return s.heal()
}

// partition draws which links are down for a while.
func (s *sim) partition() {
	clear(s.cut)
	if s.chance(1 - 0.6*s.faults) {
		return
	}
	for a := range MemberID(simPool) {
		for b := range MemberID(simPool) {
			if s.chance(0.25) {
				s.cut[[2]MemberID{a + 1, b + 1}] = true
			}
		}
	}
}

func (s *sim) pick() *simNode { return s.nodes[s.rng.IntN(s.born)] }

func (s *sim) step() error {
	n := s.pick()
	if n.Stepper == nil {
		if !n.removed && s.chance(0.05) {
			return n.start()
		}
		return s.deliver()
	}
	switch p := s.rng.Float64(); {
	case p < 0.05:
		n.Tick()
	case p < 0.50:
		return s.deliver()
	case p < 0.65:
		return n.write()
	case p < 0.75:
		n.TakeWritten()
	case p < 0.85:
		return n.apply()
	case p < 0.93:
		n.propose()
	case p < 0.935:
		n.proposeConfChange()
	case p < 0.965:
		n.read()
	case p < 0.98:
		n.flushed = n.state
	case p < 0.985:
		if err := n.takeSnapshot(); err != nil || n.Stepper == nil {
			return err
		}
	case p < 0.9855:
		n.TransferLeader(s.pick().id)
	case p < 0.986+0.006*s.faults:
		n.crash()
		return nil
	}
	return n.act()
}

// deliver takes any message from the network: late, twice, or never.
func (s *sim) deliver() error {
	if len(s.net) == 0 {
		return nil
	}
	i := 0
	if s.chance(0.3) {
		i = s.rng.IntN(len(s.net))
	}
	m := s.net[i]
	if s.calm || !s.chance(0.03) { // else it comes again
		s.net = slices.Delete(s.net, i, i+1)
	}
	to := s.nodes[m.GetTo()-1]
	lost := to == nil || to.Stepper == nil ||
		!s.calm && (s.cut[[2]MemberID{MemberID(m.GetFrom()), to.id}] || s.chance(0.03))
	if m.GetType() == raftpb.MsgSnap {
		if err := s.deliverBody(m, to, lost); err != nil {
			return err
		}
	}
	if lost {
		return nil
	}
	to.Step(m)
	return to.act()
}

// deliverBody does the transport's part of a snapshot: the body is durable
// before the message is handed on, and the sender hears how it went.
func (s *sim) deliverBody(m *raftpb.Message, to *simNode, lost bool) error {
	if !lost {
		meta := Described(m)
		to.bodies = append(to.bodies, simState{
			index: meta.Index, term: meta.Term, conf: meta.Conf, gone: string(m.GetSnapshot().GetData()),
		})
	}
	from := s.nodes[m.GetFrom()-1]
	if from.Stepper == nil {
		return nil
	}
	from.ReportSnapshot(MemberID(m.GetTo()), !lost)
	return from.act()
}

func (n *simNode) config(start State) Config {
	return Config{
		ID: n.id, ElectionTicks: 10, HeartbeatTicks: 1, PreVote: n.s.rng.IntN(4) > 0, Start: start,
		CatchUpEntries: 20, LogBytesMax: 1 << 20, ApplyBytesMax: 1 << 10, UncommittedBytesMax: 1 << 14,
		Log: n.disk, Transport: n, Snapshots: n, Rand: n.s.src,
	}
}

func (n *simNode) start() error {
	start, err := n.disk.load()
	if err != nil {
		return fmt.Errorf("member %d: %w", n.id, err)
	}
	if start.Snapshot.Index > n.flushed.index {
		if n.flushed = n.body(start.Snapshot); n.flushed.index == 0 {
			return fmt.Errorf("member %d: log starts at snapshot %d, whose body is nowhere", n.id, start.Snapshot.Index)
		}
	}
	start.Applied, start.Conf = n.flushed.index, n.flushed.conf
	if n.Stepper, err = NewStepper(n.config(start)); err != nil {
		return fmt.Errorf("start member %d: %w", n.id, err)
	}
	n.pending = map[string]bool{}
	n.state = n.flushed
	return n.act()
}

func (n *simNode) crash() {
	n.Stepper = nil
	n.disk.crash()
	n.s.counts.Crashes++
}

// Send implements Transport.
func (n *simNode) Send(messages []*raftpb.Message) { n.s.net = append(n.s.net, messages...) }

// SendSnapshot implements SnapshotSender.
func (n *simNode) SendSnapshot(m *raftpb.Message) {
	Describe(m, SnapshotMeta{n.state.index, n.state.term, n.state.conf}, []byte(n.state.gone))
	n.s.net = append(n.s.net, m)
}

// act hands out the work and checks what must hold afterwards.
func (n *simNode) act() error {
	var err error
	for _, e := range n.Act() { // committed here; perhaps never applied here
		err = errors.Join(err, n.s.agree(n.id, uint64(e.Index), simEntry{uint64(e.Term), string(e.Data)}))
	}
	return errors.Join(err, n.stale, n.check())
}

func (n *simNode) write() error {
	err := n.Write()
	if errors.Is(err, errPower) {
		n.crash()
		return nil
	}
	return err
}

func (n *simNode) propose() {
	var ps [][]byte
	for range 1 + n.s.rng.IntN(3) {
		n.s.serial++
		data := fmt.Sprintf("%d/%d", n.id, n.s.serial)
		ps = append(ps, []byte(data))
	}
	for _, p := range ps[:n.Propose(ps...)] {
		n.pending[string(p)] = true
	}
}

func (n *simNode) proposeConfChange() {
	kinds := []ConfChangeKind{AddVoter, AddLearner, AddVoter, RemoveMember}
	cc := ConfChange{Kind: kinds[n.s.rng.IntN(len(kinds))], Member: MemberID(1 + n.s.rng.IntN(simPool))}
	n.ProposeConfChange(cc)
}

func (n *simNode) read() {
	if solo, ok := n.SoloIndex(); ok {
		n.answered(solo, n.s.ackedMax)
	}
	floor := n.s.ackedMax
	n.ReadIndex(func(index Index, err error) {
		if err == nil {
			n.answered(index, floor)
		}
	})
}

// answered checks a read index against what was acknowledged before the
// question.
func (n *simNode) answered(index, floor Index) {
	n.s.counts.Reads++
	if index < floor {
		n.stale = fmt.Errorf("stale read on member %d: index %d, but %d was acknowledged before", n.id, index, floor)
	}
}

func (n *simNode) takeSnapshot() error {
	if n.flushed.index == 0 {
		return nil
	}
	err := n.SaveSnapshot(SnapshotMeta{n.flushed.index, n.flushed.term, n.flushed.conf}, nil)
	if errors.Is(err, errPower) {
		n.crash()
		return nil
	}
	return err
}

func (n *simNode) apply() error {
	a, ok := n.NextApply()
	if !ok {
		return nil
	}
	if a.Snapshot != nil {
		n.s.counts.Snapshots++
		if a.Snapshot.Index <= n.state.index {
			return fmt.Errorf("member %d applied %d and got snapshot %d", n.id, n.state.index, a.Snapshot.Index)
		}
		if n.state = n.body(*a.Snapshot); n.state.index != a.Snapshot.Index {
			return fmt.Errorf("member %d: no body for snapshot %d", n.id, a.Snapshot.Index)
		}
		n.flushed = n.state
		n.Applied(a)
		return n.act()
	}
	for i, e := range a.Entries {
		if i > 0 && e.Index != a.Entries[i-1].Index+1 {
			return fmt.Errorf("member %d: gap before entry %d", n.id, e.Index)
		}
		if err := n.applyEntry(e); err != nil {
			return err
		}
		if n.Stepper == nil {
			return nil // removed
		}
	}
	n.Applied(a)
	return n.act()
}

func (n *simNode) applyEntry(e Entry) error {
	if e.Index > n.state.index+1 {
		return fmt.Errorf("member %d applied %d, then got entry %d", n.id, n.state.index, e.Index)
	}
	if err := n.s.agree(n.id, uint64(e.Index), simEntry{uint64(e.Term), string(e.Data)}); err != nil {
		return err
	}
	old := e.Index <= n.state.index
	if !old {
		n.state.index, n.state.term = e.Index, e.Term
	}
	if e.Kind == EntryConfChange {
		return n.applyConf(e, old)
	}
	if n.pending[string(e.Data)] {
		delete(n.pending, string(e.Data))
		n.s.acked[string(e.Data)] = e.Index
		n.s.ackedMax = max(n.s.ackedMax, e.Index)
		n.s.counts.Acked++
	}
	return nil
}

// applyConf decides as a state machine would: from its own state only.
func (n *simNode) applyConf(e Entry, old bool) error {
	cc, err := DecodeConfChange(e.Data)
	if err != nil {
		return err
	}
	if old || n.refuses(cc) {
		n.ApplyConfChange(nil)
		return nil
	}
	n.state.conf = n.ApplyConfChange(&cc)
	if cc.Kind == RemoveMember {
		n.state.gone += strconv.Itoa(int(cc.Member))
	}
	n.s.counts.ConfChanges++
	if cc.Kind != RemoveMember {
		n.s.birth(cc.Member)
	} else if cc.Member == n.id {
		if err := n.act(); err != nil { // its last words
			return err
		}
		n.flushed, n.removed, n.Stepper = n.state, true, nil
	}
	return nil
}

func (n *simNode) refuses(cc ConfChange) bool {
	conf := n.state.conf
	voter := has(conf.Voters, cc.Member)
	switch cc.Kind {
	case AddVoter:
		return voter || containsDigit(n.state.gone, cc.Member)
	case AddLearner:
		return conf.Has(cc.Member) || containsDigit(n.state.gone, cc.Member)
	default:
		return !conf.Has(cc.Member) || voter && len(conf.Voters) <= 2
	}
}

func containsDigit(gone string, id MemberID) bool {
	for _, c := range gone {
		if c == rune('0'+id) {
			return true
		}
	}
	return false
}

// birth starts the empty member that was just added, if it is new; members are
// born in order, and one added before its turn is started with those below.
func (s *sim) birth(id MemberID) {
	for s.born < int(id) {
		n := s.newNode(MemberID(s.born+1), State{})
		s.born++
		if err := n.start(); err != nil {
			panic(err)
		}
	}
}

// agree checks that all members know the same committed entry at index.
func (s *sim) agree(id MemberID, index uint64, e simEntry) error {
	if index == uint64(len(s.committed))+1 {
		s.committed = append(s.committed, e)
		s.counts.Committed++
		return nil
	}
	if index > uint64(len(s.committed)) {
		return fmt.Errorf("member %d committed %d before anyone committed %d", id, index, len(s.committed)+1)
	}
	if have := s.committed[index-1]; have != e {
		return fmt.Errorf("member %d has %v committed at %d, others have %v", id, e, index, have)
	}
	return nil
}

// check is what must hold on a member after every step.
func (n *simNode) check() error {
	c := n.core
	if c.role == Leader {
		if other, known := n.s.leaders[c.term]; known && other != n.id {
			return fmt.Errorf("members %d and %d both lead term %d", other, n.id, c.term)
		} else if !known {
			n.s.leaders[c.term] = n.id
			n.s.counts.Elections++
		}
	}
	for i := 1; i < len(c.log.entries); i++ {
		if c.log.entries[i].GetTerm() < c.log.entries[i-1].GetTerm() {
			return fmt.Errorf("member %d: terms go down at %d", n.id, c.log.entries[i].GetIndex())
		}
	}
	return nil
}

// heal ends all faults and checks that the cluster recovers, with everything
// that was acknowledged.
func (s *sim) heal() error {
	s.calm = true
	clear(s.cut)
	probe := ""
	for round := range 4000 {
		for _, n := range s.nodes[:s.born] {
			if n.removed {
				continue
			}
			if err := s.calmRound(n, round); err != nil {
				return fmt.Errorf("after healing: %w", err)
			}
			if n.Stepper != nil && round%200 == 199 && n.core.role == Leader && n.core.canPropose() {
				probe = fmt.Sprintf("probe %d", round)
				n.pending[probe] = n.Propose([]byte(probe)) == 1
			}
		}
		if _, ok := s.acked[probe]; ok && s.even() {
			return s.ackedExist()
		}
	}
	return fmt.Errorf("the cluster did not recover: %d committed\n%s", len(s.committed), s.describe())
}

func (s *sim) describe() (out string) {
	for _, n := range s.nodes[:s.born] {
		if n.Stepper == nil {
			out += fmt.Sprintf("member %d: down, removed %v\n", n.id, n.removed)
			continue
		}
		out += fmt.Sprintf("member %d: %v of term %d, leader %d, commit %d, applied %d, log (%d, %d], %+v; %v\n", n.id, n.core.role,
			n.core.term, n.core.lead, n.core.commit, n.state.index, n.core.log.before.index, n.core.log.last(), n.core.conf, n.core.progress())
	}
	return out
}

func (s *sim) calmRound(n *simNode, round int) error {
	if n.Stepper == nil {
		return n.start()
	}
	if round%5 == 0 {
		n.Tick()
	}
	if err := n.act(); err != nil {
		return err
	}
	if err := n.write(); err != nil || n.Stepper == nil {
		return err
	}
	n.TakeWritten()
	if err := n.act(); err != nil {
		return err
	}
	if err := n.apply(); err != nil {
		return err
	}
	for range 2 * s.born {
		if err := s.deliver(); err != nil {
			return err
		}
	}
	return nil
}

// even reports whether all members of the newest configuration that can have
// applied everything have.
func (s *sim) even() bool {
	conf := ConfState{}
	for _, n := range s.nodes[:s.born] {
		if n.Stepper != nil && n.core.role == Leader && n.state.index == Index(len(s.committed)) {
			conf = n.state.conf
		}
	}
	if len(conf.Voters) == 0 {
		return false
	}
	for _, n := range s.nodes[:s.born] {
		if conf.Has(n.id) && n.state.index != Index(len(s.committed)) {
			return false
		}
	}
	return true
}

func (s *sim) ackedExist() error {
	for data, index := range s.acked {
		if s.committed[index-1].data != data {
			return fmt.Errorf("acknowledged %q is not at %d", data, index)
		}
	}
	return nil
}
