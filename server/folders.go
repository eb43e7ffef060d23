package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/kvorum/kvorum/raft/wal"
)

// makeFolders makes the folders of a member, and their names durable: without
// that, a power failure could take away a folder with everything that was synced
// in it.
func (p paths) makeFolders(dataDir string) error {
	for _, dir := range []string{p.snap, filepath.Dir(p.wal)} {
		if err := makeDurably(dir, dataDir); err != nil {
			return err
		}
	}
	return nil
}

// makeDurably makes a folder and its missing parents. It syncs the parent of
// each that it made, and of the folder own and each below it, which an earlier
// start may have made without getting that far.
func makeDurably(dir, own string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if own, err = filepath.Abs(own); err != nil {
		return err
	}
	made := map[string]bool{}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		made[at] = true
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for at := dir; made[at] || at == own || strings.HasPrefix(at, own+"/"); at = filepath.Dir(at) {
		// Who may not list the folder above the data may still use the data.
		err := wal.OS().SyncDir(filepath.Dir(at))
		if err != nil && (made[at] || !errors.Is(err, fs.ErrPermission)) {
			return fmt.Errorf("sync folder %s: %w", filepath.Dir(at), err)
		}
	}
	return nil
}
