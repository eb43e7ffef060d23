package offline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/raft/wal"
)

// Errors that callers tell apart.
var (
	// ErrInUse says that a server has the directory open: stop it first.
	ErrInUse = errors.New("a server has this data folder open; stop it first")
	// ErrNoData says that there is no member's data in the directory: check the path.
	ErrNoData = errors.New("holds no member's data")
)

// Dir is where a member keeps its data.
type Dir struct {
	Data string
	WAL  string // "" = inside Data
}

func (d Dir) snap() string { return filepath.Join(d.Data, "member", "snap") }
func (d Dir) db() string   { return filepath.Join(d.snap(), "db") }

func (d Dir) wal() string {
	if d.WAL != "" {
		return d.WAL
	}
	return filepath.Join(d.Data, "member", "wal")
}

// lock keeps servers away until unlock. It changes nothing on the disk. A
// directory without a log has nothing to lock.
func (d Dir) lock() (unlock func(), err error) {
	if _, err := os.Stat(filepath.Join(d.Data, "member")); err != nil {
		return nil, fmt.Errorf("%s %w: %w", d.Data, ErrNoData, err)
	}
	names, err := wal.OS().ReadDir(d.wal())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list log: %w", err)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, ".wal") })
	if len(names) == 0 {
		return func() {}, nil
	}
	f, err := wal.OS().OpenFile(filepath.Join(d.wal(), names[len(names)-1]), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if err := f.Lock(); errors.Is(err, wal.ErrLocked) {
		return nil, errors.Join(fmt.Errorf("%s: %w", d.Data, ErrInUse), f.Close())
	} else if err != nil {
		return nil, errors.Join(fmt.Errorf("lock log: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// identity reads who a log belongs to.
func identity(metadata []byte) (member, cluster uint64, err error) {
	var m etcdserverpb.Metadata
	if err := m.UnmarshalVT(metadata); err != nil {
		return 0, 0, fmt.Errorf("read log metadata: %w", err)
	}
	return m.GetNodeID(), m.GetClusterID(), nil
}

// startOf is the snapshot that a server would start at: the last record at or
// below the last saved commit.
func startOf(in wal.Inspection) (at wal.Snapshot) {
	for _, s := range in.Snapshots {
		if s.Index <= in.HardState.GetCommit() {
			at = s
		}
	}
	return at
}

// Unused fails with ErrInUse while a server has the directory open. One that
// does not exist is not used.
func (d Dir) Unused() error {
	unlock, err := d.lock()
	if errors.Is(err, ErrNoData) {
		return nil
	}
	if err != nil {
		return err
	}
	unlock()
	return nil
}
