package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/raft/wal"
	"github.com/kvorum/kvorum/server/state"
)

// RestoreOptions say how to make the data directory of one member of a new
// cluster out of a snapshot file.
type RestoreOptions struct {
	SnapshotPath      string
	DataDir, WALDir   string // WALDir "" = inside DataDir
	Name              string
	InitialCluster    map[string][]string // peer URLs by member name
	ClusterToken      string
	AdvertisePeerURLs []string
	SkipHashCheck     bool   // the file is a plain database without a SHA-256 behind it
	BumpRevision      uint64 // with MarkCompacted: raise the revision by so many
	MarkCompacted     bool
}

// Restore makes the data directory. Each member of the new cluster restores
// the same file with its own name; keys, revisions, leases and users stay, the
// membership is new. What a failed restore has left must be removed by hand.
func Restore(ctx context.Context, o RestoreOptions) error {
	cfg, err := o.config()
	if err != nil {
		return err
	}
	all, self, err := cfg.initialMembers(ctx)
	if err != nil {
		return err
	}
	p := cfg.paths()
	if err := o.refuseExisting(p); err != nil {
		return err
	}
	if err := p.makeFolders(o.DataDir); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	if err := o.copyDatabase(ctx, p.db()); err != nil {
		return err
	}
	at := mvcc.Applied{Index: uint64(len(all)), Term: 1}
	if err := mvcc.Edit(p.db(), func(e *mvcc.Editor) error { return o.edit(e, all, at) }); err != nil {
		return err
	}
	return restoreLog(p, all, self)
}

func (o RestoreOptions) config() (Config, error) {
	cfg := DefaultConfig()
	cfg.Name, cfg.DataDir, cfg.WALDir, cfg.InitialClusterToken = o.Name, o.DataDir, o.WALDir, o.ClusterToken
	var parts []string
	for _, name := range slices.Sorted(mapKeys(o.InitialCluster)) {
		for _, u := range o.InitialCluster[name] {
			parts = append(parts, name+"="+u)
		}
	}
	cfg.InitialCluster = strings.Join(parts, ",")
	urls, err := ParseURLs(strings.Join(o.AdvertisePeerURLs, ","))
	cfg.AdvertisePeerURLs = urls
	return cfg, err
}

func mapKeys(m map[string][]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func (o RestoreOptions) refuseExisting(p paths) error {
	names, err := os.ReadDir(o.DataDir)
	if (err != nil && !errors.Is(err, fs.ErrNotExist)) || len(names) > 0 {
		return fmt.Errorf("data-dir %q not empty or could not be read", o.DataDir)
	}
	if _, err := os.Stat(p.wal); err == nil {
		return fmt.Errorf("wal-dir %q exists", p.wal)
	}
	return nil
}

// copyDatabase copies the snapshot without the SHA-256 behind it, and checks
// it on the way.
func (o RestoreOptions) copyDatabase(ctx context.Context, to string) error {
	in, err := os.Open(o.SnapshotPath)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	size, hashed := info.Size(), info.Size()%512 == sha256.Size
	if !hashed && !o.SkipHashCheck {
		return errors.New("snapshot missing hash but --skip-hash-check=false")
	}
	if hashed {
		size -= sha256.Size
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(out, sum), contextReader{ctx, io.LimitReader(in, size)}); err != nil {
		return errors.Join(fmt.Errorf("copy snapshot: %w", err), out.Close())
	}
	if err := errors.Join(out.Sync(), out.Close(), wal.OS().SyncDir(filepath.Dir(to))); err != nil {
		return fmt.Errorf("copy snapshot: %w", err)
	}
	if o.SkipHashCheck {
		return nil
	}
	want, err := io.ReadAll(in)
	if err != nil {
		return fmt.Errorf("read hash of snapshot: %w", err)
	}
	if got := sum.Sum(nil); !slices.Equal(got, want) {
		return fmt.Errorf("expected sha256 %v, got %v", want, got)
	}
	return nil
}

// contextReader reads until its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// edit puts the new membership into the database.
func (o RestoreOptions) edit(e *mvcc.Editor, all []state.Member, at mvcc.Applied) error {
	for _, b := range []mvcc.Bucket{mvcc.BucketMembers, mvcc.BucketMembersRemoved} {
		if err := e.Clear(b); err != nil {
			return err
		}
	}
	for _, m := range all {
		if err := e.Set(mvcc.BucketMembers, strconv.AppendUint(nil, uint64(m.ID), 16), state.MemberContext(m)); err != nil {
			return err
		}
	}
	if o.BumpRevision > 0 || o.MarkCompacted {
		if _, err := e.BumpRevision(o.BumpRevision); err != nil {
			return err
		}
	}
	return e.SetApplied(at)
}

// restoreLog makes a log that begins with the new members' addition and a
// snapshot of it, which the database stands for.
func restoreLog(p paths, all []state.Member, self state.Member) error {
	m, err := newMember(all, self)
	if err != nil {
		return err
	}
	conf := raft.ConfState{}
	for _, member := range all {
		conf.Voters = append(conf.Voters, raft.MemberID(member.ID))
	}
	m.start.HardState.Vote = new(uint64(all[0].ID))
	if err := m.createLog(p); err != nil {
		return err
	}
	meta := raft.SnapshotMeta{Index: raft.Index(len(all)), Term: 1, Conf: conf}
	tree := wal.LegacyTree(walMembership(all, nil, ""))
	if err := raft.NewDiskLog(m.log, p.snap, false).MarkSnapshot(meta, tree); err != nil {
		return errors.Join(err, m.log.Close())
	}
	return m.log.Close()
}
