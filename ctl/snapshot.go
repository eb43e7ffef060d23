package ctl

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/client"
)

func newSnapshot(a *app) *cobra.Command {
	return group("snapshot", "Back a cluster up to a file, and make a new cluster from it", newSnapshotRestore(a), newSnapshotSave(a), newSnapshotStatus(a))
}

func newSnapshotSave(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "save <file>", Short: "Save all keys, with their history, of one member to a file",
		Example: "  " + a.name + " snapshot save /backup/snapshot.db",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArgs("snapshot save expects one argument <filename>")
			}
			return a.long(func(c command) error {
				if n := c.Endpoints(); len(n) != 1 {
					return fail(exitInterrupted, "snapshot must be requested to one selected node, not multiple %v", n)
				}
				version, err := c.save(args[0])
				if err != nil {
					return &failure{exitInterrupted, err}
				}
				c.printf("Snapshot saved at %s\n", args[0])
				if version != "" {
					c.printf("Server version %s\n", version)
				}
				return nil
			})
		},
	}
}

// save fetches a snapshot into path.part and renames it when it is whole, has
// the right hash, and is on the disk.
func (c command) save(path string) (version string, err error) {
	start, part := time.Now(), path+".part"
	opening, cancel := context.WithTimeout(c.ctx, max(c.global.dialTimeout, c.global.commandTimeout))
	defer cancel()
	if _, err := c.Client.Status(opening, c.Endpoints()[0]); err != nil && !errors.Is(err, client.ErrLearner) {
		return "", err
	}
	f, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) //nolint:gosec // the file of the user
	if err != nil {
		return "", fmt.Errorf("could not open %s (%w)", part, err)
	}
	c.log.Info("created temporary db file", "path", part)
	n, version, err := c.fetch(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(part))
	}
	c.log.Info("fetched snapshot", "endpoint", c.Endpoints()[0], "size", humanize.Bytes(uint64(n)), //nolint:gosec // a size
		"took", time.Since(start).String(), "etcd-version", version)
	if err := os.Rename(part, path); err != nil {
		return "", err
	}
	c.log.Info("saved", "path", path)
	return version, syncDir(filepath.Dir(path))
}

// fetch copies a snapshot to f.
func (c command) fetch(f io.Writer) (n int64, version string, err error) {
	s, err := c.Snapshot(c.ctx)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = s.Close() }()
	c.log.Info("fetching snapshot", "endpoint", c.Endpoints()[0])
	bar := c.progress("snapshot", s.SizeBytes)
	n, err = io.Copy(io.MultiWriter(f, bar), s)
	bar.done()
	return n, s.Version, err
}

func syncDir(path string) error {
	d, err := os.Open(path) //nolint:gosec // the directory of the user's file
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func newSnapshotStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status <file>", Short: "Show hash, revision, keys and size of a snapshot file",
		Example: "  " + a.name + " snapshot status /backup/snapshot.db -w table",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArgs("snapshot status requires exactly one argument")
			}
			p, err := a.printer()
			if err != nil {
				return err
			}
			s, err := fileStatus(args[0])
			if err != nil {
				return err
			}
			return shown(p.FileStatus(s))
		},
	}
}

// RestoreOptions says how to make a data directory out of a snapshot.
type RestoreOptions struct {
	SnapshotPath      string
	DataDir, WALDir   string // WALDir "" = inside DataDir
	Name              string
	InitialCluster    map[string][]string // peer URLs by member name
	ClusterToken      string
	AdvertisePeerURLs []string
	SkipHashCheck     bool
	BumpRevision      uint64
	MarkCompacted     bool
}

// SafeBump is by how much `snapshot restore` and `recover` raise the revision
// unless they are told otherwise. Clients of the lost cluster may have seen
// revisions beyond those of the file; at 100,000 writes a second they would be
// beyond the bump only if the file were 115 days old. Revisions stay exact in
// programs that count in float64 for 9,000 such steps.
const SafeBump = 1_000_000_000_000

type restoreFlags struct {
	dataDir, walDir, name, cluster, token, peers string
	skipHash, markCompacted                      bool
	bump, memoryMap                              uint64
	revisionSet                                  bool // one of the two flags about revisions was given
}

func newSnapshotRestore(a *app) *cobra.Command {
	var f restoreFlags
	c := &cobra.Command{
		Use: "restore <file>", Short: "Make the data folder of a member of a new cluster from a snapshot",
		Example: "  " + a.name + " snapshot restore snap.db --name m1 --data-dir m1.etcd \\\n" +
			"    --initial-cluster m1=http://10.0.0.1:2380 --initial-advertise-peer-urls http://10.0.0.1:2380",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArgs("snapshot restore requires exactly one argument")
			}
			f.revisionSet = cmd.Flags().Changed("bump-revision") || cmd.Flags().Changed("mark-compacted")
			o, err := f.options(args[0])
			if err != nil {
				return err
			}
			safe := a.name == nameOwn && !f.revisionSet
			if safe {
				o.BumpRevision, o.MarkCompacted = SafeBump, true
			}
			if !o.SkipHashCheck {
				if err := checkHash(o.SnapshotPath, a.progress); err != nil {
					return err
				}
			}
			if a.Restore == nil {
				return errors.New("this program was built without the server, which snapshot restore needs")
			}
			if err := a.Restore(a.ctx, o); err != nil {
				return err
			}
			if safe {
				a.tellBump("--bump-revision=0 restores the revisions as they were, as etcdutl does. All members of the new cluster must be restored the same way.")
			}
			return nil
		},
	}
	s := c.Flags()
	s.StringVar(&f.dataDir, "data-dir", "", "`folder` to make (empty = <name>.etcd)")
	s.StringVar(&f.walDir, "wal-dir", "", "`folder` for the log (empty = inside --data-dir)")
	s.StringVar(&f.cluster, "initial-cluster", "default=http://localhost:2380", "all members of the new cluster: `name=URL`, with commas between")
	s.StringVar(&f.token, "initial-cluster-token", "etcd-cluster", "a word that tells this cluster from others; the same for all its members")
	s.StringVar(&f.peers, "initial-advertise-peer-urls", "http://localhost:2380", "`URLs` at which the other members will reach this one")
	s.StringVar(&f.name, "name", "default", "name of this member, as in --initial-cluster")
	s.BoolVar(&f.skipHash, "skip-hash-check", false, "take a file without its hash, such as a database copied from a data folder")
	bump := "count on from a revision this much higher, so that none is used twice"
	if a.name == nameOwn {
		bump += fmt.Sprintf(" (not given: %d, and --mark-compacted; 0: keep the revisions)", uint64(SafeBump))
	}
	s.Uint64Var(&f.bump, "bump-revision", 0, bump)
	s.BoolVar(&f.markCompacted, "mark-compacted", false, "forget the history up to there, so that watchers notice (needs --bump-revision)")
	s.Uint64Var(&f.memoryMap, "initial-memory-map-size", 10737418240, "without effect: the map grows as it must")
	return c
}

func (f *restoreFlags) options(path string) (RestoreOptions, error) {
	o := RestoreOptions{
		SnapshotPath: path, DataDir: f.dataDir, WALDir: f.walDir, Name: f.name, ClusterToken: f.token,
		AdvertisePeerURLs: strings.Split(f.peers, ","), SkipHashCheck: f.skipHash,
		BumpRevision: f.bump, MarkCompacted: f.markCompacted, InitialCluster: map[string][]string{},
	}
	if o.DataDir == "" {
		o.DataDir = f.name + ".etcd"
	}
	if (f.bump > 0) != f.markCompacted {
		if f.bump > 0 {
			return o, badArgs("--mark-compacted required if --revision-bump > 0")
		}
		return o, badArgs("--mark-compacted cannot be used without --bump-revision")
	}
	for _, part := range strings.Split(f.cluster, ",") {
		name, url, found := strings.Cut(strings.TrimSpace(part), "=")
		if !found || name == "" {
			return o, badArgs("--initial-cluster: %q is not name=url", part)
		}
		o.InitialCluster[name] = append(o.InitialCluster[name], url)
	}
	if err := errors.Join(checkURLs(o.AdvertisePeerURLs)); err != nil {
		return o, &failure{exitArgs, err}
	}
	if len(o.InitialCluster[f.name]) == 0 {
		return o, badArgs("couldn't find local name %q in the initial cluster configuration", f.name)
	}
	return o, nil
}

// tellBump says what a raised revision means to clients.
func (a *app) tellBump(more string) {
	a.warnf("The revision was raised by %d and the history before is compacted: no revision is used twice, "+
		"and clients that watch from an old one are told to read again. %s\n", uint64(SafeBump), more)
}

// checkHash compares the SHA-256 at the end of a snapshot file.
func checkHash(path string, progress func(string, int64) *bar) error {
	f, err := os.Open(path) //nolint:gosec // the file of the user
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size()%512 != sha256.Size {
		return errors.New("snapshot missing hash but --skip-hash-check=false")
	}
	sum, size := sha256.New(), info.Size()-sha256.Size
	b := progress("checking", size)
	_, err = io.CopyN(io.MultiWriter(sum, b), f, size)
	b.done()
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(f, want); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if got := sum.Sum(nil); string(got) != string(want) {
		return fmt.Errorf("expected sha256 %v, got %v", want, got)
	}
	return nil
}
