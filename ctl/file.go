package ctl

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/ctl/print"
	"github.com/kvorum/kvorum/mvcc"
)

// fileStatus reads a database or a snapshot file without changing it.
func fileStatus(path string) (print.FileStatus, error) {
	if _, err := os.Stat(path); err != nil {
		return print.FileStatus{}, err
	}
	s, err := mvcc.SnapshotStatus(path)
	return print.FileStatus{
		Hash: s.Hash, Revision: int64(s.Revision), TotalKey: s.TotalKeys, TotalSize: s.SizeBytes, Version: s.Version,
	}, err
}

// lockTimeout is how long to wait for a member that has the file open.
const lockTimeout = 10 * time.Second

// defragmentFile rewrites the database of a stopped member.
func (a *app) defragmentFile(path string) error {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	s, err := mvcc.Open(path, mvcc.Options{LockTimeout: a.global.lockTimeout})
	if err != nil {
		return fmt.Errorf("%w (is the member stopped?)", err)
	}
	return errors.Join(s.Defragment(a.ctx), s.Close())
}

func newHashKV(a *app) *cobra.Command {
	var rev int64
	c := &cobra.Command{
		Use: "hashkv <file>", Short: "Show the hash of the keys in a database or snapshot file",
		Example: "  " + a.name + " hashkv /backup/snapshot.db",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArgs("hashkv requires exactly one argument")
			}
			p, err := a.printer()
			if err != nil {
				return err
			}
			h, err := fileHash(args[0], rev)
			if err != nil {
				return err
			}
			return shown(p.FileHash(h))
		},
	}
	c.Flags().Int64Var(&rev, "rev", 0, "hash the keys as of this revision (0 = the latest)")
	return c
}

// fileHash works on a copy: opening a store changes its file, and a snapshot
// so changed would no longer match its own hash.
func fileHash(path string, rev int64) (h print.FileHash, err error) {
	dir, err := os.MkdirTemp("", "hashkv")
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	copied := filepath.Join(dir, "db")
	if err := copyFile(path, copied); err != nil {
		return h, err
	}
	s, err := mvcc.Open(copied, mvcc.Options{})
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	got, err := s.HashKV(mvcc.Revision(rev))
	return print.FileHash{
		Hash: got.Hash, HashRevision: int64(got.HashRevision), CompactRevision: int64(got.CompactRevision),
	}, err
}

func copyFile(from, to string) error {
	in, err := os.Open(from) //nolint:gosec // the file of the user
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(to) //nolint:gosec // a temporary file
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
