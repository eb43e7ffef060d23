package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/raft/wal"
	"github.com/kvorum/kvorum/server/state"
)

// member is what a start has found or made on disk: who this member is, its
// open log and store, and where raft goes on.
type member struct {
	self    state.MemberID
	cluster uint64
	log     *wal.Log
	store   *mvcc.Store
	machine *state.Machine
	start   raft.State
	// The members of the running cluster that this one joins: it must be able to
	// answer them before its own log names them.
	remotes []state.Member
}

func (m *member) close() {
	if m.log != nil {
		m.log.Close()
	}
	if m.store != nil {
		m.store.Close()
	}
}

// paths are the folders of a member.
type paths struct{ snap, wal string }

func (c *Config) paths() paths {
	p := paths{snap: filepath.Join(c.DataDir, "member", "snap"), wal: c.WALDir}
	if p.wal == "" {
		p.wal = filepath.Join(c.DataDir, "member", "wal")
	}
	return p
}

func (p paths) db() string { return filepath.Join(p.snap, "db") }

// boot finds out how this member starts. A log on disk wins over all --initial
// flags.
func (c *Config) boot(ctx context.Context, log *slog.Logger, client *http.Client, storeOptions mvcc.Options) (*member, error) {
	p := c.paths()
	if err := c.prepareFolders(p, log); err != nil {
		return nil, err
	}
	if wal.Exists(wal.OS(), p.wal) {
		defer tellSlowOpen(log, p.db())()
		return c.restart(ctx, p, log, storeOptions)
	}
	if err := c.discover(ctx, log); err != nil {
		return nil, err
	}
	if c.InitialClusterState == ClusterExisting {
		return c.join(ctx, p, client, storeOptions)
	}
	return c.create(ctx, p, storeOptions)
}

// slowOpenAfter is when an operator is told why a member does not start yet.
const slowOpenAfter = 10 * time.Second

// tellSlowOpen logs that the database is not open yet, unless the returned
// function is called soon: the wait for its lock has no end.
func tellSlowOpen(log *slog.Logger, path string) (opened func()) {
	timer := time.AfterFunc(slowOpenAfter, func() {
		log.Warn("db file is flocked by another process, or taking too long", "path", path, "took", slowOpenAfter)
	})
	return func() { timer.Stop() }
}

func (c *Config) prepareFolders(p paths, log *slog.Logger) error {
	if info, err := os.Stat(c.DataDir); err == nil && info.Mode().Perm() != 0o700 {
		log.Warn("check file permission", "path", c.DataDir, "permission", info.Mode().Perm().String(), "recommended", "-rwx------")
	}
	if err := p.makeFolders(c.DataDir); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	if _, err := wal.CleanSnapDir(wal.OS(), p.snap); err != nil {
		return fmt.Errorf("clean %s: %w", p.snap, err)
	}
	return nil
}

func (c *Config) machineOptions() state.Options {
	learners := c.MaxLearners
	if learners == 0 {
		learners = state.NoLearners
	}
	return state.Options{MinLeaseTTL: c.minLeaseTTL(), MaxLearners: learners}
}

// openStore opens the database and the machine on it.
func (c *Config) openStore(p paths, m *member, o mvcc.Options) (err error) {
	m.store, err = mvcc.Open(p.db(), o)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	m.machine, err = state.New(m.store, c.machineOptions())
	if err != nil {
		return fmt.Errorf("load state: %w", err)
	}
	return checkVersions(m.machine.ClusterVersion(), m.machine.StorageVersion())
}

// create starts a member of a new cluster.
func (c *Config) create(ctx context.Context, p paths, o mvcc.Options) (*member, error) {
	m, err := c.firstState(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.openStore(p, m, o); err != nil {
		m.close()
		return nil, err
	}
	if m.store.Applied().Index > 0 {
		m.close()
		return nil, fmt.Errorf("%s holds data up to index %d but %s holds no log: the log was lost or moved; restore a snapshot, or give the right --wal-dir", p.db(), m.store.Applied().Index, p.wal)
	}
	if err := m.createLog(p); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// firstState is who this member of a new cluster is, before anything is on
// disk.
func (c *Config) firstState(ctx context.Context) (*member, error) {
	all, self, err := c.initialMembers(ctx)
	if err != nil {
		return nil, err
	}
	return newMember(all, self)
}

// newMember is a member with the first entries, which every member writes the
// same: one addition per member, already committed.
func newMember(all []state.Member, self state.Member) (*member, error) {
	changes := make([]raft.ConfChange, len(all))
	for i, m := range all {
		changes[i] = raft.ConfChange{Kind: raft.AddVoter, Member: raft.MemberID(m.ID), Context: state.MemberContext(m)}
	}
	start, err := raft.Bootstrap(changes)
	if err != nil {
		return nil, err
	}
	return &member{self: self.ID, cluster: clusterID(all), start: start}, nil
}

// createLog makes the log with the first entries in it, durable as one.
func (m *member) createLog(p paths) error {
	metadata := etcdserverpb.Metadata{NodeID: new(uint64(m.self)), ClusterID: new(m.cluster)}
	text, err := metadata.MarshalVT()
	if err != nil {
		return fmt.Errorf("encode log metadata: %w", err)
	}
	if m.log, err = wal.Create(wal.OS(), p.wal, text); err != nil {
		return fmt.Errorf("create log: %w", err)
	}
	return m.writeFirst()
}

func (m *member) writeFirst() error {
	if err := m.log.Append(m.start.HardState, m.start.Entries); err != nil {
		return fmt.Errorf("write first entries: %w", err)
	}
	if err := m.log.Sync(); err != nil {
		return fmt.Errorf("write first entries: %w", err)
	}
	return nil
}

// joinTimeout bounds the questions to the running cluster.
const joinTimeout = 30 * time.Second

// join starts a member that a running cluster has been told to expect. Its ID
// is the one that the cluster drew for its peer URLs.
func (c *Config) join(ctx context.Context, p paths, client *http.Client, o mvcc.Options) (*member, error) {
	flags, self, err := c.initialMembers(ctx)
	if err != nil {
		return nil, err
	}
	var urls []string
	for _, f := range flags {
		if f.Name != c.Name {
			urls = append(urls, f.PeerURLs...)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	running, cluster, err := fetchMembers(ctx, client, urls)
	if err != nil {
		return nil, fmt.Errorf("cannot fetch cluster info from peer urls: %w", err)
	}
	m, err := c.matchRunning(ctx, cluster, running, flags, self)
	if err != nil {
		return nil, err
	}
	if err := checkRunning(ctx, client, urls); err != nil {
		return nil, err
	}
	if err := c.openStore(p, m, o); err != nil {
		m.close()
		return nil, err
	}
	m.start = raft.State{}
	if err := m.createLog(p); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// restart goes on from the log and the database on disk.
func (c *Config) restart(ctx context.Context, p paths, log *slog.Logger, o mvcc.Options) (*member, error) {
	found, err := wal.ValidSnapshots(wal.OS(), p.wal)
	if err != nil {
		return nil, fmt.Errorf("failed to open WAL: %w", err)
	}
	var at wal.Snapshot
	if len(found) > 0 {
		at = found[len(found)-1]
	}
	m := &member{}
	if err := c.openStoreAt(p, m, at, o); err != nil {
		m.close()
		return nil, err
	}
	if err := c.openLog(p, m, at, log); err != nil {
		m.close()
		return nil, err
	}
	if err := c.finishCreation(ctx, m, log); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// finishCreation writes the first entries of a member of a new cluster that
// crashed after its log was made and before they were in it. Such a member has
// neither voted nor acknowledged anything. One that joins gets its first entries
// from the leader; its ID is not the one that the flags give.
func (c *Config) finishCreation(ctx context.Context, m *member, log *slog.Logger) error {
	blank := len(m.start.Entries) == 0 && m.start.HardState.GetTerm() == 0 && m.start.Snapshot.Index == 0 && m.start.Applied == 0
	if !blank || c.InitialClusterState != ClusterNew {
		return nil
	}
	if err := c.discover(ctx, log); err != nil {
		return fmt.Errorf("the log is empty: %w", err)
	}
	first, err := c.firstState(ctx)
	if err != nil {
		return fmt.Errorf("the log is empty: %w", err)
	}
	if first.self != m.self || first.cluster != m.cluster {
		return nil
	}
	log.Info("the log is empty; creating the member again", "member", fmt.Sprintf("%x", uint64(m.self)))
	m.start = first.start
	return m.writeFirst()
}

// openStoreAt opens the database; one that is older than the log's snapshot is
// replaced by the one that the leader had sent with it.
func (c *Config) openStoreAt(p paths, m *member, at wal.Snapshot, o mvcc.Options) error {
	if _, err := os.Stat(p.db()); errors.Is(err, os.ErrNotExist) && at.Index > 0 {
		if err := installReceived(p, at.Index); err != nil {
			return err
		}
	}
	if err := c.openStore(p, m, o); err != nil {
		return err
	}
	if m.store.Applied().Index >= at.Index {
		return nil
	}
	if err := m.store.Close(); err != nil {
		return err
	}
	m.store = nil
	if err := installReceived(p, at.Index); err != nil {
		return err
	}
	if err := c.openStore(p, m, o); err != nil {
		return err
	}
	if ci := m.store.Applied().Index; ci < at.Index {
		return fmt.Errorf("database file (%s index %d) does not match with snapshot (index %d)", p.db(), ci, at.Index)
	}
	return nil
}

func installReceived(p paths, index uint64) error {
	path, err := wal.SnapDBPath(wal.OS(), p.snap, index)
	if err != nil {
		return fmt.Errorf("failed to recover v3 backend from snapshot: failed to find database snapshot file: %w", err)
	}
	if err := os.Rename(path, p.db()); err != nil {
		return fmt.Errorf("install received database: %w", err)
	}
	return wal.OS().SyncDir(p.snap)
}

func (c *Config) openLog(p paths, m *member, at wal.Snapshot, log *slog.Logger) error {
	opened, contents, err := wal.Open(wal.OS(), p.wal, at)
	if err != nil {
		return fmt.Errorf("failed to open WAL: %w", err)
	}
	m.log = opened
	if contents.Repaired {
		log.Warn("repaired a torn write at the end of the log", "path", p.wal)
	}
	var metadata etcdserverpb.Metadata
	if err := metadata.UnmarshalVT(contents.Metadata); err != nil {
		return fmt.Errorf("read log metadata: %w", err)
	}
	m.self, m.cluster = state.MemberID(metadata.GetNodeID()), metadata.GetClusterID()
	applied := m.store.Applied().Index
	m.start = raft.State{
		HardState: contents.HardState, Entries: contents.Entries,
		Snapshot: raft.SnapshotMeta{Index: raft.Index(at.Index), Term: raft.Term(at.Term), Conf: raftConf(m.machine.ConfState())},
		Conf:     raftConf(m.machine.ConfState()),
		Applied:  raft.Index(applied),
	}
	if c.ForceNewCluster {
		if err := m.forceNewCluster(); err != nil {
			return err
		}
	}
	return m.checkLog(log)
}

// checkLog refuses a log that cannot belong to the database beside it.
func (m *member) checkLog(log *slog.Logger) error {
	last, commit := m.start.Last(), m.start.HardState.GetCommit()
	if commit > uint64(last) {
		return fmt.Errorf("the log ends at index %d but says that %d is committed: part of it is missing; restore this member from a snapshot or add it anew", last, commit)
	}
	if applied := m.start.Applied; applied > last {
		return fmt.Errorf("the database holds index %d but the log ends at %d: the files are of different times; restore this member from a snapshot or add it anew", applied, last)
	}
	log.Info("restarting", "member", fmt.Sprintf("%x", uint64(m.self)), "cluster", fmt.Sprintf("%x", m.cluster),
		"applied", uint64(m.start.Applied), "commit", commit, "last", uint64(last), "term", m.start.HardState.GetTerm())
	return nil
}

// forceNewCluster drops what is not committed and appends committed entries
// that remove every other member.
func (m *member) forceNewCluster() error {
	var changes []raft.ConfChange
	for _, other := range m.machine.Members() {
		if other.ID != m.self {
			changes = append(changes, raft.ConfChange{Kind: raft.RemoveMember, Member: raft.MemberID(other.ID)})
		}
	}
	if self, ok := m.machine.Member(m.self); !ok {
		add := state.Member{ID: m.self, PeerURLs: []string{"http://localhost:2380"}}
		changes = slices.Insert(changes, 0, raft.ConfChange{Kind: raft.AddVoter, Member: raft.MemberID(m.self), Context: state.MemberContext(add)})
	} else if self.IsLearner {
		changes = slices.Insert(changes, 0, raft.ConfChange{Kind: raft.AddVoter, Member: raft.MemberID(m.self), Context: state.PromoteContext(m.self)})
	}
	added, err := m.start.ForceMembers(changes)
	if err != nil {
		return fmt.Errorf("--force-new-cluster: %w", err)
	}
	if err := m.log.Append(m.start.HardState, added); err != nil {
		return fmt.Errorf("--force-new-cluster: %w", err)
	}
	return m.log.Sync()
}
