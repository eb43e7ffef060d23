package wal

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Preallocate reserves the blocks with fallocate, so that a later write cannot
// run out of space and fdatasync has no new size to record. File systems
// without it get a sparse file.
func (f osFile) Preallocate(size int64) error {
	err := f.control("fallocate", func(fd int) error { return unix.Fallocate(fd, 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.extend(size)
	}
	return err
}

// SyncData is fdatasync.
func (f osFile) SyncData() error { return f.control("fdatasync", unix.Fdatasync) }

// Lock takes an open-file-description lock, which unlike the older kind is not
// dropped when another descriptor of the process is closed. Kernels and file
// systems without it get flock.
func (f osFile) Lock() error {
	whole := unix.Flock_t{Type: unix.F_WRLCK, Whence: 0, Start: 0, Len: 0}
	err := f.control("lock", func(fd int) error { return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &whole) })
	if errors.Is(err, unix.EINVAL) {
		err = f.control("flock", func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	}
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return ErrLocked
	}
	return err
}

// control runs call on the descriptor, again when a signal interrupted it
// before it did anything.
func (f osFile) control(op string, call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		for {
			if failed = call(int(fd)); !errors.Is(failed, unix.EINTR) {
				return
			}
		}
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return &os.PathError{Op: op, Path: f.Name(), Err: err}
	}
	return nil
}
