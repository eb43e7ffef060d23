package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// KeepFiles is how many files of a kind are kept unless the operator says
// otherwise.
const KeepFiles = 5

// Purge deletes the oldest segments of the log in dir beyond the newest keep,
// stopping at the first that is locked: a [Log] holds what it needs until
// [Log.Release]. keep 0 keeps all. It may run while a Log is open, in any
// goroutine. The names of what was deleted are returned.
func Purge(fs FS, dir string, keep int) ([]string, error) { return purge(fs, dir, ".wal", keep) }

// PurgeSnaps does the same for .snap files. Received databases are not counted:
// the log may begin at one that is neither installed nor the newest, so they go
// by position, with [RemoveSnapDBs].
func PurgeSnaps(fs FS, dir string, keep int) ([]string, error) { return purge(fs, dir, ".snap", keep) }

func purge(fs FS, dir, suffix string, keep int) (removed []string, err error) {
	if keep <= 0 {
		return nil, nil
	}
	names, err := fs.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list files to purge: %w", err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, suffix) })
	slices.Sort(names)
	for len(names) > keep {
		err := removeUnlocked(fs, filepath.Join(dir, names[0]))
		if errors.Is(err, ErrLocked) {
			break
		}
		if err != nil {
			return removed, fmt.Errorf("purge %s: %w", names[0], err)
		}
		removed = append(removed, names[0])
		names = names[1:]
	}
	return removed, nil
}

// removeUnlocked deletes the file unless someone holds its lock. The directory
// is synced, so that of a row of segments never a middle one is gone and an
// older one back after a crash.
func removeUnlocked(fs FS, path string) error {
	file, err := fs.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Lock(); err != nil {
		return err
	}
	if err := fs.Remove(path); err != nil {
		return err
	}
	return fs.SyncDir(filepath.Dir(path))
}
