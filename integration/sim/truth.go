package sim

import (
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/server/state"
)

// truth is a member that never crashes: it applies every entry as soon as
// anyone knows that it is committed.
type truth struct {
	store   *mvcc.Store
	machine *state.Machine

	entries []string // [i] is the entry of index i+1: term, kind, data
	results []uint64 // of the same entries
	confs   []string // the membership after index i; [0] is none
	revs    []int64  // the revision after index i
	states  map[uint64]picture
	acked   map[uint64]bool
	ackedAt map[uint64]uint64

	chronicle *chronicle
}

// picture is the state after an entry.
type picture struct {
	digest uint64
	hash   mvcc.HashKV
}

// checkEvery is how many entries lie between two comparisons of whole states.
const checkEvery = 16

func newTruth(dir string) (*truth, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	store, err := mvcc.Open(filepath.Join(dir, "db"), mvcc.Options{MmapBytes: 4 << 20, NoSync: true})
	if err != nil {
		return nil, err
	}
	machine, err := state.New(store, state.Options{MinLeaseTTL: 2, MaxLearners: 2})
	return &truth{
		store: store, machine: machine, confs: []string{confText(raft.ConfState{})}, revs: []int64{1},
		states: map[uint64]picture{}, acked: map[uint64]bool{}, ackedAt: map[uint64]uint64{}, chronicle: newChronicle(),
	}, err
}

// agree takes an entry that some member knows as committed.
func (t *truth) agree(s *Sim, e raft.Entry) error {
	text := fmt.Sprintf("%d/%d/%s", e.Term, e.Kind, e.Data)
	switch n := uint64(len(t.entries)); {
	case uint64(e.Index) <= n:
		if have := t.entries[e.Index-1]; have != text {
			return fmt.Errorf("entry %d is %q here, and was committed as %q", e.Index, text, have)
		}
		return nil
	case uint64(e.Index) > n+1:
		return fmt.Errorf("entry %d is committed before anyone has committed %d", e.Index, n+1)
	}
	t.entries = append(t.entries, text)
	return t.apply(s, e)
}

func (t *truth) apply(s *Sim, e raft.Entry) error {
	at := mvcc.Applied{Index: uint64(e.Index), Term: uint64(e.Term)}
	var res state.Result
	if e.Kind == raft.EntryConfChange {
		cc, err := raft.DecodeConfChange(e.Data)
		if err != nil {
			return err
		}
		res = t.machine.ApplyConfChange(at, stateChange(cc))
	} else {
		res = t.machine.Apply(at, e.Data)
	}
	t.store.Publish()
	t.results = append(t.results, digestResult(res))
	t.confs = append(t.confs, confText(raftConf(t.machine.ConfState())))
	t.revs = append(t.revs, int64(t.store.Revision()))
	if err := t.chronicle.write(t.store); err != nil {
		return fmt.Errorf("entry %d: %w", e.Index, err)
	}
	if err := s.followPromises(res); err != nil {
		return fmt.Errorf("entry %d: %w", e.Index, err)
	}
	if at.Index%checkEvery != 0 {
		return nil
	}
	p, err := t.picture()
	t.states[at.Index] = p
	return err
}

func (t *truth) picture() (p picture, err error) {
	if p.digest, err = digestState(t.store); err != nil {
		return p, err
	}
	p.hash, err = t.store.HashKV(0)
	return p, err
}

// digestResult is a hash of all that a result says.
func digestResult(r state.Result) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, r.RequestID, r.Op, r.Err, r.CompactTo, r.Leases, r.ClusterVersion)
	if r.Member != nil {
		fmt.Fprint(h, *r.Member)
	}
	if m, ok := r.Response.(interface{ MarshalVT() ([]byte, error) }); ok {
		data, err := m.MarshalVT()
		fmt.Fprintf(h, "%T", r.Response)
		h.Write(data)
		fmt.Fprint(h, err)
	}
	return h.Sum64()
}

// digestState is a hash of the visible state, taken without flushing.
func digestState(s *mvcc.Store) (uint64, error) {
	h := fnv.New64a()
	r, err := s.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if err != nil {
		return 0, err
	}
	data, err := r.MarshalVT()
	if err != nil {
		return 0, err
	}
	h.Write(data)
	fmt.Fprint(h, s.Revision(), s.CompactRevision())
	for _, b := range []mvcc.Bucket{
		mvcc.BucketAlarm, mvcc.BucketAuth, mvcc.BucketAuthRoles, mvcc.BucketAuthUsers, mvcc.BucketCluster,
		mvcc.BucketLease, mvcc.BucketMembers, mvcc.BucketMembersRemoved, mvcc.BucketMeta,
	} {
		if err := digestBucket(h, s, b); err != nil {
			return 0, err
		}
	}
	return h.Sum64(), nil
}

// digestBucket leaves out what depends on when a member flushed and compacted.
func digestBucket(h hash.Hash64, s *mvcc.Store, b mvcc.Bucket) error {
	return s.Load(b, func(k, v []byte) error {
		switch string(k) {
		case "consistent_index", "term", "finishedCompactRev":
			return nil
		}
		fmt.Fprintf(h, "%s %q %q\n", b, k, v)
		return nil
	})
}

func (t *truth) checkResult(index raft.Index, r state.Result) error {
	if digestResult(r) != t.results[index-1] {
		return fmt.Errorf("entry %d (%q) gives another result here: %+v", index, t.entries[index-1], r)
	}
	return nil
}

// checkAnswer compares what a client was told of its put or deletion with what
// the store that told it has.
func checkAnswer(s *mvcc.Store, r *pb.InternalRaftRequest, res state.Result) error {
	switch answer := res.Response.(type) {
	case *pb.PutResponse:
		rev := answer.Header.Revision
		got, err := s.Range(&pb.RangeRequest{Key: r.Put.Key, Revision: rev})
		switch {
		case errors.Is(err, mvcc.ErrCompacted):
			return nil
		case err != nil:
			return err
		case len(got.Kvs) != 1 || got.Kvs[0].ModRevision != rev || !r.Put.IgnoreValue && string(got.Kvs[0].Value) != string(r.Put.Value):
			return fmt.Errorf("acknowledged put of %q at revision %d is lost: %v", r.Put.Key, rev, got.Kvs)
		}
	case *pb.DeleteRangeResponse:
		got, err := s.Range(&pb.RangeRequest{Key: r.DeleteRange.Key, RangeEnd: r.DeleteRange.RangeEnd, Revision: answer.Header.Revision})
		switch {
		case errors.Is(err, mvcc.ErrCompacted):
			return nil
		case err != nil:
			return err
		case len(got.Kvs) != 0:
			return fmt.Errorf("acknowledged deletion of %q at revision %d is lost: %v", r.DeleteRange.Key, answer.Header.Revision, got.Kvs)
		}
	}
	return nil
}

func (t *truth) checkConf(index uint64, conf raft.ConfState) error {
	if index >= uint64(len(t.confs)) {
		return fmt.Errorf("membership at %d, committed are %d", index, len(t.entries))
	}
	if have := confText(conf); have != t.confs[index] {
		return fmt.Errorf("the membership at %d is %s, not %s", index, t.confs[index], have)
	}
	return nil
}

// checkState compares the whole state of a member that has just published an
// entry that the truth has a picture of.
func (m *member) checkState() error {
	index := m.store.Applied().Index
	want := m.sim.truth.states[index]
	digest, err := digestState(m.store)
	if err != nil {
		return err
	}
	if digest != want.digest {
		return fmt.Errorf("the state at entry %d differs", index)
	}
	m.sim.note(index, digest)
	m.sim.counts.Checks++
	if m.sim.chance(0.2) {
		return m.compareHash(want.hash)
	}
	return nil
}

// checkHash compares with the truth, which must be at the same entry.
func (m *member) checkHash() error {
	want, err := m.sim.truth.picture()
	if err != nil {
		return err
	}
	digest, err := digestState(m.store)
	if err != nil {
		return err
	}
	if digest != want.digest {
		return fmt.Errorf("the state at entry %d differs", m.store.Applied().Index)
	}
	return m.compareHash(want.hash)
}

func (m *member) compareHash(want mvcc.HashKV) error {
	have, err := m.store.HashKV(0)
	if err != nil {
		return err
	}
	if have != want {
		return fmt.Errorf("hash %+v at entry %d, not %+v", have, m.store.Applied().Index, want)
	}
	return nil
}

// compareRead reads from a member and compares with what the truth says of that
// revision, if it still has it. It returns the member's revision.
func (t *truth) compareRead(s *mvcc.Store, r *pb.RangeRequest) (int64, error) {
	got, err := s.Range(r)
	rev := r.Revision
	if err != nil {
		compacted := errors.Is(err, mvcc.ErrCompacted) && rev < int64(s.CompactRevision())
		future := errors.Is(err, mvcc.ErrFutureRevision) && rev > int64(s.Revision())
		if !compacted && !future {
			return 0, fmt.Errorf("read %v with compact revision %d and revision %d: %w", r, s.CompactRevision(), s.Revision(), err)
		}
		return 0, nil
	}
	now := got.Header.Revision
	if rev == 0 {
		rev = now
	}
	if rev < int64(t.store.CompactRevision()) {
		return now, nil
	}
	same := proto.Clone(r).(*pb.RangeRequest)
	same.Revision = rev
	want, err := t.store.Range(same)
	if err != nil {
		return 0, fmt.Errorf("read %v from the truth: %w", same, err)
	}
	want.Header, got.Header = nil, nil
	if !proto.Equal(want, got) {
		return 0, fmt.Errorf("read %v gives %v, not %v", r, got, want)
	}
	return now, nil
}
