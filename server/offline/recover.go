package offline

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/raft/wal"
	"github.com/kvorum/kvorum/server/state"
)

// RecoverOptions say how to make a new cluster out of a survivor.
type RecoverOptions struct {
	Dir          Dir
	BumpRevision uint64 // raise the revision by so many, and compact the history before; 0: neither
}

// Recovered is the cluster that Recover has made.
type Recovered struct {
	Cluster  uint64   `json:"cluster"`
	Self     Member   `json:"self"`     // the only voter
	Learners []Member `json:"learners"` // the others, which have yet to be started
	End      Position `json:"end"`
	// Uncommitted is how many entries at the end of the log the survivor did not
	// know to be committed. They count as committed now.
	Uncommitted uint64   `json:"uncommitted"`
	Revision    int64    `json:"revision"`
	Kept        []string `json:"kept"`   // the folders as they were
	Alarms      []string `json:"alarms"` // that were active, and are no more
}

// recovery is a Recover under way.
type recovery struct {
	RecoverOptions
	work     Dir // where the new files are made
	log      wal.Inspection
	at       wal.Snapshot // where the old log begins
	entries  []*raft.RawEntry
	result   Recovered
	members  []state.Member // of the new cluster, this one first
	removed  []state.MemberID
	version  string // of the cluster
	lastTerm uint64
}

// Recover makes the member of a stopped survivor the only voter of its cluster;
// the others become learners with new IDs and their old URLs. All old IDs count
// as removed, this member's too: an old member, or an old copy of this one, that
// comes back is told so by the new members and stops. The cluster keeps its ID.
func Recover(ctx context.Context, o RecoverOptions) (Recovered, error) {
	unlock, err := o.Dir.lock()
	if err != nil {
		return Recovered{}, err
	}
	defer unlock()
	r := recovery{RecoverOptions: o, work: o.Dir.beside("recovering")}
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"clear what an earlier recovery left", r.clear}, {"read log", r.readLog}, {"copy database", r.copyDatabase},
		{"apply log", r.applyLog}, {"change members", r.changeMembers}, {"write log", r.writeLog},
	} {
		if err := errors.Join(ctx.Err(), step.do(ctx)); err != nil {
			return Recovered{}, fmt.Errorf("%s: %w (%s is as it was)", step.what, err, o.Dir.Data)
		}
	}
	if err := r.swap(); err != nil {
		return Recovered{}, fmt.Errorf("put the new files in place: %w", err)
	}
	return r.result, nil
}

// beside is a directory whose folders have a suffix in their names. They are on
// the same file system, also if the data folder is a mount point.
func (d Dir) beside(suffix string) Dir {
	out := Dir{Data: filepath.Join(d.Data, "member."+suffix)}
	if d.WAL != "" {
		out.WAL = d.WAL + "." + suffix
	}
	return out
}

func (r *recovery) clear(context.Context) error {
	if err := os.RemoveAll(r.work.Data); err != nil {
		return err
	}
	if r.work.WAL != "" {
		if err := os.RemoveAll(r.work.WAL); err != nil {
			return err
		}
	}
	return os.MkdirAll(r.work.snap(), 0o700)
}

func (r *recovery) readLog(context.Context) error {
	in, err := wal.Inspect(wal.OS(), r.Dir.wal())
	if err != nil {
		return err
	}
	for _, f := range in.Findings {
		if !f.Torn {
			return fmt.Errorf("%s: %s", f.Path, f.Text)
		}
	}
	self, cluster, err := identity(in.Metadata)
	if err != nil {
		return err
	}
	r.log, r.at, r.lastTerm = in, startOf(in), in.LastTerm
	r.result.Self.ID, r.result.Cluster = self, cluster
	contents, err := wal.Read(wal.OS(), r.Dir.wal(), r.at)
	if err != nil {
		return err
	}
	r.entries = contents.Entries
	last := r.at.Index
	if n := len(r.entries); n > 0 {
		last, r.lastTerm = r.entries[n-1].GetIndex(), r.entries[n-1].GetTerm()
	}
	r.result.End = Position{r.lastTerm, last}
	return nil
}

// copyDatabase takes the live database, or the one that the leader has sent, if
// it was not yet in place.
func (r *recovery) copyDatabase(ctx context.Context) error {
	from := r.Dir.db()
	applied, err := appliedIn(from)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil || applied < r.at.Index {
		if from, err = wal.SnapDBPath(wal.OS(), r.Dir.snap(), r.at.Index); err != nil {
			return err
		}
	}
	return copyFile(ctx, from, r.work.db())
}

func appliedIn(path string) (uint64, error) {
	if _, err := os.Stat(path); err != nil {
		return 0, err
	}
	store, err := mvcc.OpenForLoad(path)
	if err != nil {
		return 0, err
	}
	return store.Applied().Index, store.Close()
}

func copyFile(ctx context.Context, from, to string) error {
	in, err := os.Open(filepath.Clean(from))
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // it was only read
	out, err := os.OpenFile(filepath.Clean(to), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = in.Close() }) // ends the copy
	_, err = io.Copy(out, in)
	stop()
	return errors.Join(err, out.Sync(), out.Close())
}

// flushBytes is how much of the log is applied between two flushes.
const flushBytes = 8 << 20

// applyLog runs everything that the database lacks through the machine, as a
// server would once it is committed.
func (r *recovery) applyLog(ctx context.Context) (err error) {
	store, err := mvcc.Open(r.work.db(), mvcc.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	machine, err := state.New(store, state.Options{MaxLearners: math.MaxInt})
	if err != nil {
		return err
	}
	known := max(r.log.HardState.GetCommit(), store.Applied().Index)
	if r.result.End.Index > known {
		r.result.Uncommitted = r.result.End.Index - known
	}
	bytes := 0
	for _, e := range r.entries {
		if err := applyEntry(machine, e); err != nil {
			return fmt.Errorf("entry %d: %w", e.GetIndex(), err)
		}
		store.Publish()
		if bytes += len(e.GetData()); bytes > flushBytes {
			if err := errors.Join(ctx.Err(), store.Flush()); err != nil {
				return err
			}
			bytes = 0
		}
	}
	if applied := store.Applied().Index; applied != r.result.End.Index {
		return fmt.Errorf("the database holds entries up to %d, the log up to %d", applied, r.result.End.Index)
	}
	r.version, r.removed = machine.ClusterVersion(), machine.RemovedMembers()
	return r.plan(machine)
}

func applyEntry(machine *state.Machine, e *raft.RawEntry) error {
	at := mvcc.Applied{Index: e.GetIndex(), Term: e.GetTerm()}
	switch raft.EntryKind(e.GetType()) {
	case raft.EntryNormal:
		machine.Apply(at, e.GetData()) // what it refuses, every member refuses
		return nil
	case raft.EntryConfChange:
		cc, err := raft.DecodeConfChange(e.GetData())
		if err != nil {
			return err
		}
		machine.ApplyConfChange(at, state.ConfChange{ID: cc.ID, Kind: state.ConfChangeKind(cc.Kind), Member: state.MemberID(cc.Member), Context: cc.Context})
		return nil
	}
	return fmt.Errorf("unknown entry type %d", e.GetType())
}

// plan decides the new membership.
func (r *recovery) plan(machine *state.Machine) error {
	old := state.MemberID(r.result.Self.ID)
	self, ok := machine.Member(old)
	if !ok {
		return fmt.Errorf("member %x is no member of its cluster any more; take another survivor", uint64(old))
	}
	for _, a := range machine.Alarms(etcdserverpb.AlarmType_NONE) {
		r.result.Alarms = append(r.result.Alarms, fmt.Sprintf("%s of member %x", a.GetAlarm(), a.GetMemberID()))
	}
	var err error
	self.IsLearner = false
	if self.ID, err = newID(); err != nil {
		return err
	}
	r.members, r.result.Self = []state.Member{self}, memberOf(self)
	for _, m := range machine.Members() {
		r.removed = append(r.removed, m.ID)
		if m.ID == old {
			continue
		}
		learner := memberOf(m)
		m.IsLearner, m.Name, m.ClientURLs = true, "", nil // it tells them when it starts
		if m.ID, err = newID(); err != nil {
			return err
		}
		learner.ID, learner.IsLearner = uint64(m.ID), true
		r.members = append(r.members, m)
		r.result.Learners = append(r.result.Learners, learner)
	}
	return nil
}

// newID draws an ID that no member of any cluster has had.
func newID() (state.MemberID, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("draw a member ID: %w", err)
	}
	return state.MemberID(binary.BigEndian.Uint64(b[:]) | 1), nil // never 0
}

// conf is the membership in raft's form.
func (r *recovery) conf() raft.ConfState {
	conf := raft.ConfState{Voters: []raft.MemberID{raft.MemberID(r.members[0].ID)}}
	for _, m := range r.members[1:] {
		conf.Learners = append(conf.Learners, raft.MemberID(m.ID))
	}
	slices.Sort(conf.Learners)
	return conf
}

// changeMembers writes the new membership into the database, in one
// transaction.
func (r *recovery) changeMembers(context.Context) error {
	key := func(id state.MemberID) []byte { return strconv.AppendUint(nil, uint64(id), 16) }
	return mvcc.Edit(r.work.db(), func(e *mvcc.Editor) error {
		if err := errors.Join(e.Clear(mvcc.BucketMembers), e.Clear(mvcc.BucketAlarm)); err != nil {
			return err
		}
		for _, id := range r.removed {
			if err := e.Set(mvcc.BucketMembersRemoved, key(id), []byte(state.RemovedMark)); err != nil {
				return err
			}
		}
		for _, m := range r.members {
			if err := e.Set(mvcc.BucketMembers, key(m.ID), state.MemberContext(m)); err != nil {
				return err
			}
		}
		conf := state.ConfState{}
		for _, id := range r.conf().Voters {
			conf.Voters = append(conf.Voters, state.MemberID(id))
		}
		for _, id := range r.conf().Learners {
			conf.Learners = append(conf.Learners, state.MemberID(id))
		}
		if err := e.Set(mvcc.BucketMeta, []byte(state.ConfStateKey), conf.Encode()); err != nil {
			return err
		}
		rev, err := e.Revision()
		if err == nil && r.BumpRevision > 0 {
			rev, err = e.BumpRevision(r.BumpRevision)
		}
		r.result.Revision = int64(rev)
		return err
	})
}

// writeLog makes a log that begins with a snapshot at the end of the old one. A
// new member therefore gets the whole database, not entries of before.
func (r *recovery) writeLog(context.Context) error {
	self, end := uint64(r.members[0].ID), r.result.End
	metadata, err := (&etcdserverpb.Metadata{NodeID: &self, ClusterID: &r.result.Cluster}).MarshalVT()
	if err != nil {
		return err
	}
	log, err := wal.Create(wal.OS(), r.work.wal(), metadata)
	if err != nil {
		return err
	}
	membership := wal.Membership{ClusterVersion: r.version}
	for _, m := range r.members {
		membership.Members = append(membership.Members, wal.Member{ID: uint64(m.ID), Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.IsLearner})
	}
	for _, id := range r.removed {
		membership.Removed = append(membership.Removed, uint64(id))
	}
	meta := raft.SnapshotMeta{Index: raft.Index(end.Index), Term: raft.Term(end.Term), Conf: r.conf()}
	err = raft.NewDiskLog(log, r.work.snap(), false).MarkSnapshot(meta, wal.LegacyTree(membership))
	if err == nil {
		term := max(end.Term, r.log.HardState.GetTerm())
		err = log.Append(&raft.HardState{Term: &term, Vote: new(uint64(0)), Commit: &end.Index}, nil)
	}
	if err == nil {
		err = log.Sync()
	}
	return errors.Join(err, log.Close())
}

// swap renames: the old folders get a name that tells when, the new ones theirs.
func (r *recovery) swap() error {
	kept := r.Dir.beside("before-recovery-" + time.Now().UTC().Format("20060102T150405Z"))
	moves := [][2]string{
		{filepath.Join(r.Dir.Data, "member"), kept.Data},
		{filepath.Join(r.work.Data, "member"), filepath.Join(r.Dir.Data, "member")},
	}
	if r.Dir.WAL != "" {
		moves = slices.Concat([][2]string{{r.Dir.WAL, kept.WAL}}, moves, [][2]string{{r.work.WAL, r.Dir.WAL}})
	}
	for n, m := range moves {
		if _, err := os.Stat(m[1]); err == nil {
			return fmt.Errorf("%s is in the way", m[1])
		}
		if err := os.Rename(m[0], m[1]); err != nil {
			return fmt.Errorf("%w; renamed before it: %q", err, moves[:n])
		}
	}
	r.result.Kept = append(r.result.Kept, kept.Data)
	if r.Dir.WAL != "" {
		r.result.Kept = append(r.result.Kept, kept.WAL)
		if err := wal.OS().SyncDir(filepath.Dir(r.Dir.WAL)); err != nil {
			return err
		}
	}
	return errors.Join(wal.OS().SyncDir(r.Dir.Data), os.Remove(r.work.Data))
}
