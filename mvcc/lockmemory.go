package mvcc

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// lockError says what to do about a file that could not be locked in RAM.
func lockError(err error, o Options) error {
	if !o.LockMemory || !strings.Contains(err.Error(), "mlock") {
		return err
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) != nil {
		return fmt.Errorf("%w: %w", ErrLockMemory, err)
	}
	return fmt.Errorf("%w: this process may lock %d bytes; raise that above the size of the database (ulimit -l, LimitMEMLOCK= of systemd) or grant CAP_IPC_LOCK: %w",
		ErrLockMemory, limit.Cur, err)
}
