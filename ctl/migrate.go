package ctl

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/coreos/go-semver/semver"
	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/internal/version"
	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/raft/wal"
)

// migrateOldest is the oldest storage version. Its files do not say so: the
// version is written since 3.6.
const migrateOldest = "3.5"

var storageVersionKey = []byte("storageVersion")

// migration is what `migrate` was asked for.
type migration struct {
	dataDir, target string
	force           bool
}

func newMigrate(a *app) *cobra.Command {
	var m migration
	c := &cobra.Command{
		Use: "migrate", Short: "Mark a stopped member's data as that of an older or newer version",
		Example: "  " + a.name + " migrate --data-dir default.etcd --target-version 3.6",
		RunE:    func(*cobra.Command, []string) error { return m.run(a) },
	}
	f := c.Flags()
	f.StringVar(&m.dataDir, "data-dir", "", "the member's data `folder`")
	f.StringVar(&m.target, "target-version", "", "`X.Y`, from "+migrateOldest+" to "+version.Storage[:3])
	f.BoolVar(&m.force, "force", false, "go on when the log or the raft snapshot cannot be read")
	return c
}

func (m *migration) run(a *app) error {
	if m.dataDir == "" {
		return badArgs("--data-dir is missing")
	}
	target, err := m.version()
	if err != nil {
		return err
	}
	snap := filepath.Join(m.dataDir, "member", "snap")
	path := filepath.Join(snap, "db")
	if _, err := os.Stat(path); err != nil {
		return err
	}
	if err := checkLog(filepath.Join(m.dataDir, "member", "wal"), snap); err != nil {
		if !m.force {
			return err
		}
		a.log.Warn("the log cannot be read; going on as told", "error", err.Error())
	}
	from, err := setStorageVersion(path, target)
	if err != nil {
		return err
	}
	if from == target {
		a.log.Info("storage version up-to-date", "storage-version", shortVersion(from))
	} else {
		a.log.Info("updated storage version", "from", shortVersion(from), "to", shortVersion(target))
	}
	return nil
}

// version is the target as the file says it: X.Y.0, or "" for the oldest.
func (m *migration) version() (string, error) {
	if m.target == "" {
		return "", badArgs("--target-version is missing")
	}
	v, err := semver.NewVersion(m.target + ".0")
	if err != nil || strings.Count(m.target, ".") != 1 {
		return "", badArgs("target version %q is not of the form X.Y", m.target)
	}
	if v.LessThan(*semver.New(migrateOldest + ".0")) {
		return "", badArgs("target version %q not supported. Minimal %q", m.target, migrateOldest)
	}
	if semver.New(version.Storage).LessThan(*v) {
		return "", badArgs("target version %q not supported. Maximal %q", m.target, version.Storage[:3])
	}
	if m.target == migrateOldest {
		return "", nil
	}
	return v.String(), nil
}

func shortVersion(v string) string {
	if v == "" {
		return migrateOldest
	}
	return strings.TrimSuffix(v, ".0")
}

// checkLog reads the log from its last snapshot on, and that snapshot.
func checkLog(logDir, snapDir string) error {
	marks, err := wal.ValidSnapshots(wal.OS(), logDir)
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	last := wal.Snapshot{}
	for _, at := range marks {
		if at.Index == 0 {
			continue
		}
		if _, err := wal.ReadSnapFile(wal.OS(), filepath.Join(snapDir, wal.SnapFileName(at.Index, at.Term))); err == nil {
			last = at
		} else if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("read raft snapshot: %w", err)
		}
	}
	if _, err := wal.Read(wal.OS(), logDir, last); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	return nil
}

// setStorageVersion returns the version before.
func setStorageVersion(path, target string) (from string, err error) {
	err = mvcc.Edit(path, func(e *mvcc.Editor) error {
		from = string(bytes.Clone(e.Get(mvcc.BucketMeta, storageVersionKey)))
		switch target {
		case from:
			return nil
		case "":
			return e.Delete(mvcc.BucketMeta, storageVersionKey)
		}
		return e.Set(mvcc.BucketMeta, storageVersionKey, []byte(target))
	})
	return from, err
}
