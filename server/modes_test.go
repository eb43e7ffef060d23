package server

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// If this fails, other users of the machine can read keys and values in the
// files of a member.
func TestFilesAreOfTheMemberAlone(t *testing.T) {
	m := startMember(t, func(cfg *Config) {
		cfg.SnapshotCount, cfg.DataDir = 1, filepath.Join(t.TempDir(), "new")
		cfg.Audit.To = filepath.Join(cfg.DataDir, "audit")
		if err := os.Mkdir(cfg.DataDir, 0o700); err != nil {
			t.Fatal(err)
		}
	})
	for range 20 {
		if _, err := pb.NewKVClient(m.conn).Put(m.ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	eventually(t, "a snapshot, the log and the database exist", func() bool {
		err := filepath.WalkDir(m.cfg.DataDir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil //nolint:nilerr // a file that came and went
			}
			info, err := d.Info()
			if err != nil {
				return nil //nolint:nilerr // the same
			}
			seen[filepath.Ext(path)+filepath.Base(path)[:1]] = true
			if mode := info.Mode().Perm(); mode&0o077 != 0 {
				t.Errorf("%s has mode %o", path, mode)
			}
			return nil
		})
		return err != nil || t.Failed() || seen["d"] && seen[".wal0"] && seen[".snap0"]
	})
}

// If this fails, an operator is not told that others can read the data.
func TestWideFolderIsTold(t *testing.T) {
	cfg, log := DefaultConfig(), &logText{}
	cfg.DataDir = t.TempDir()
	if err := os.Chmod(cfg.DataDir, 0o755); err != nil { //nolint:gosec // that is what is tested
		t.Fatal(err)
	}
	if err := cfg.prepareFolders(cfg.paths(), slog.New(slog.NewTextHandler(log, nil))); err != nil {
		t.Fatal(err)
	}
	if !log.has("check file permission") || !log.has("-rwxr-xr-x") {
		t.Errorf("logged only %s", log.text.String())
	}
}
