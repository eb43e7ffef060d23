package mvcc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

// Snapshot is a consistent copy of the whole file, read like a file. It is of
// its own: the live file is not held, however slowly it is read.
type Snapshot struct {
	file    *os.File // has no name any more
	size    int64
	applied Applied
}

// Snapshot flushes and copies the file.
func (s *Store) Snapshot(ctx context.Context) (*Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	_, tx, err := s.steady()
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	defer tx.Rollback()
	snap, err := copyFile(ctx, tx, filepath.Dir(s.path))
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return snap, nil
}

// copyFile writes the transaction's state to a nameless file in the directory.
func copyFile(ctx context.Context, tx *bolt.Tx, dir string) (*Snapshot, error) {
	m, err := readMeta(tx)
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, "tmp-snapshot-*")
	if err != nil {
		return nil, fmt.Errorf("create copy: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("unlink copy: %w", err), f.Close())
	}
	n, err := tx.WriteTo(&interruptible{ctx, f})
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("copy: %w", err), f.Close())
	}
	return &Snapshot{file: f, size: n, applied: m.applied}, nil
}

// interruptible writes until its context ends.
type interruptible struct {
	ctx context.Context
	w   io.Writer
}

func (i *interruptible) Write(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.w.Write(p)
}

// Size is how many bytes the snapshot has.
func (s *Snapshot) Size() int64 { return s.size }

// Applied is the log position that the snapshot reflects.
func (s *Snapshot) Applied() Applied { return s.applied }

// Read reads on from where the last Read ended.
func (s *Snapshot) Read(p []byte) (int, error) { return s.file.Read(p) }

// WriteTo writes the rest to w; the kernel copies to a file or socket.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, s.file) }

// Close gives the space back.
func (s *Snapshot) Close() error { return s.file.Close() }
