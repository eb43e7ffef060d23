package mvcc

import (
	"errors"
	"fmt"

	"github.com/kvorum/kvorum/internal/crash"
	"github.com/kvorum/kvorum/internal/must"
)

// Install replaces the whole state by the database file at path, which is
// renamed over the live one; it must be on the same file system. Everything
// not flushed is dropped: the new file reflects more of the log. Nothing is
// changed if the file cannot be used. Only the applier calls it, between
// entries; watchers go on from the history of the new file.
func (s *Store) Install(path string) error {
	must.True(s.writer.s == nil, "install inside an entry")
	crash.Here("applyBeforeOpenSnapshot")
	fresh, err := openDisk(path, s.opts)
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	st, err := rebuild(fresh)
	if err == nil {
		err = fresh.db.Sync()
	}
	if err == nil && (st.rev < s.rev || st.applied.Index < s.applied.Index) {
		err = fmt.Errorf("it is of revision %d and entry %d, behind %d and %d", st.rev, st.applied.Index, s.rev, s.applied.Index)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("install %s: %w", path, err), fresh.db.Close())
	}
	crash.Here("applyAfterOpenSnapshot")
	old, err := s.replace(st, path)
	if err != nil {
		return errors.Join(fmt.Errorf("install %s: %w", path, err), fresh.db.Close())
	}
	s.anchors.clear()
	s.hub.reset(s.Revision())
	s.wakeFlusher()
	if err := old.db.Close(); err != nil {
		return fmt.Errorf("install: close replaced database: %w", err)
	}
	return nil
}

// replace swaps files and states.
func (s *Store) replace(st *state, path string) (old *disk, err error) {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	if s.closed.Load() {
		return nil, ErrClosed
	}
	if c := s.flusher.copying; c != nil {
		c.cancel(ErrOvertaken) // what it has copied is of the past
	}
	crash.Here("mvcc/before-install-rename")
	if err := renameDurably(path, s.path); err != nil {
		return nil, err
	}
	crash.Here("mvcc/after-install-rename")
	s.flusher.running = 0
	s.mu.Lock()
	defer s.mu.Unlock()
	old = s.disk
	st.waiters, st.failed = s.waiters, s.failed
	s.state = *st
	s.publishView()
	s.room.Broadcast()
	return old, nil
}
