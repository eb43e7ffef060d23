//go:build unix && !linux

package wal

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Preallocate extends the file; these systems have no portable reservation.
func (f osFile) Preallocate(size int64) error { return f.extend(size) }

// SyncData is a full sync here.
func (f osFile) SyncData() error { return f.Sync() }

// Lock takes flock.
func (f osFile) Lock() error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}
