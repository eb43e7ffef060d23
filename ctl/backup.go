package ctl

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kvorum/kvorum/client"
	v2 "github.com/kvorum/kvorum/ctl/v2"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/raft/wal"
)

// backupDir copies the data directory of a stopped member. The copy has IDs of
// its own, so that it cannot take the place of the member in its cluster; a
// server starts on it with --force-new-cluster.
func backupDir(_ context.Context, o v2.BackupOptions) error {
	from, to := memberPaths(o.DataDir, o.WALDir), memberPaths(o.BackupDir, o.BackupWALDir)
	unlock, err := lockLog(from.wal)
	if err != nil {
		return err
	}
	defer unlock()
	for _, dir := range []string{to.snap, to.wal} {
		if err := makeEmpty(dir); err != nil {
			return err
		}
	}
	at, err := copySnapshots(from, to)
	if err != nil {
		return err
	}
	return copyLog(from.wal, to.wal, at)
}

// dataPaths are the folders of a member's data.
type dataPaths struct{ snap, wal string }

func memberPaths(dataDir, walDir string) dataPaths {
	p := dataPaths{filepath.Join(dataDir, "member", "snap"), walDir}
	if walDir == "" {
		p.wal = filepath.Join(dataDir, "member", "wal")
	}
	return p
}

// lockLog makes sure that no server has the log open, until unlock.
func lockLog(dir string) (unlock func(), err error) {
	segments, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil {
		return nil, err
	}
	if len(segments) == 0 {
		if _, err := os.Stat(dir); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%s holds no log", dir)
	}
	f, err := wal.OS().OpenFile(segments[len(segments)-1], os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := f.Lock(); err != nil {
		return nil, errors.Join(fmt.Errorf("%w (is the member stopped? a running one is backed up by --endpoints without --data-dir)", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// makeEmpty makes a folder; one with files in it is refused.
func makeEmpty(dir string) error {
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(names) > 0 {
		return fmt.Errorf("failed creating backup dir %s: expected %q to be empty, got %q", dir, dir, names[0].Name())
	}
	return os.MkdirAll(dir, 0o700)
}

// copySnapshots copies the database, and the newest raft snapshot, which is
// where the log has to begin.
func copySnapshots(from, to dataPaths) (at wal.Snapshot, err error) {
	marks, err := wal.ValidSnapshots(wal.OS(), from.wal)
	if err != nil {
		return at, fmt.Errorf("read log: %w", err)
	}
	files := []string{"db"}
	for _, mark := range marks {
		name := wal.SnapFileName(mark.Index, mark.Term)
		if _, err := os.Stat(filepath.Join(from.snap, name)); mark.Index > 0 && err == nil {
			at, files = mark, []string{"db", name}
		}
	}
	received := wal.SnapDBName(at.Index)
	if _, err := os.Stat(filepath.Join(from.snap, received)); err == nil && at.Index > 0 {
		files = append(files, received) // not installed before the member stopped
	}
	for _, name := range files {
		if err := copyDurably(filepath.Join(from.snap, name), filepath.Join(to.snap, name)); err != nil {
			return at, fmt.Errorf("copy %s: %w", name, err)
		}
	}
	return at, syncDir(to.snap)
}

func copyDurably(from, to string) error {
	if err := copyFile(from, to); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_RDWR, 0) //nolint:gosec // the file of the user
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Sync(), f.Close())
}

// copyLog writes what follows the snapshot into a new log with new IDs. All of
// it counts as committed: a member that was killed has not always noted the
// commit of its last writes, and --force-new-cluster drops what is not
// committed. So the backup may hold a write whose client has never had an
// answer, but lacks none that was acknowledged by this member alone.
func copyLog(from, to string, at wal.Snapshot) error {
	contents, err := wal.Read(wal.OS(), from, at)
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	if n := len(contents.Entries); n > 0 && contents.HardState != nil {
		contents.HardState.Commit = contents.Entries[n-1].Index
	}
	metadata, err := newIDs()
	if err != nil {
		return err
	}
	// The log makes its folder itself.
	if err := os.Remove(to); err != nil {
		return err
	}
	log, err := wal.Create(wal.OS(), to, metadata)
	if err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	if at.Index > 0 {
		err = log.AppendSnapshot(at)
	}
	if err == nil {
		err = log.Append(contents.HardState, contents.Entries)
	}
	if err == nil {
		err = log.Sync()
	}
	return errors.Join(err, log.Close())
}

func newIDs() ([]byte, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	node, cluster := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	return (&pb.Metadata{NodeID: &node, ClusterID: &cluster}).MarshalVT()
}

// backupServer makes a data directory from a running member: what `snapshot
// save` and `snapshot restore` do, in one step.
func (a *app) backupServer(ctx context.Context, b v2.ServerBackup) (err error) {
	if a.Restore == nil {
		return errors.New("this program was built without the server, which backup needs")
	}
	to := memberPaths(b.BackupDir, b.BackupWALDir)
	for _, dir := range []string{b.BackupDir, to.wal} {
		if names, err := os.ReadDir(dir); err == nil && len(names) > 0 {
			return fmt.Errorf("expected %q to be empty, got %q", dir, names[0].Name())
		}
	}
	c, err := client.New(client.Config{Endpoints: b.Endpoints, TLS: b.TLS, User: b.User, Password: b.Password, DialTimeout: a.global.dialTimeout, Log: a.log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	tmp, err := os.MkdirTemp("", "backup")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	first, err := a.firstAnswering(ctx, c)
	if err != nil {
		return err
	}
	path := filepath.Join(tmp, "snapshot.db")
	if _, err := (command{app: a, Client: first, ctx: ctx}).save(path); err != nil {
		return err
	}
	const name, peer = "default", "http://localhost:2380"
	return a.Restore(ctx, RestoreOptions{
		SnapshotPath: path, DataDir: b.BackupDir, WALDir: b.BackupWALDir, Name: name, ClusterToken: "etcd-cluster",
		InitialCluster: map[string][]string{name: {peer}}, AdvertisePeerURLs: []string{peer},
	})
}

// firstAnswering is the client of the first endpoint that answers: a snapshot
// is of one member.
func (a *app) firstAnswering(ctx context.Context, c *client.Client) (*client.Client, error) {
	var failed []error
	for _, e := range c.Endpoints() {
		asking, cancel := context.WithTimeout(ctx, a.global.dialTimeout)
		_, err := c.Status(asking, e)
		cancel()
		if err == nil || errors.Is(err, client.ErrLearner) {
			return c.At(e)
		}
		failed = append(failed, fmt.Errorf("%s: %w", e, err))
	}
	return nil, errors.Join(failed...)
}
