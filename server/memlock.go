package server

import (
	"golang.org/x/sys/unix"
)

// warnMemoryLock tells of a database that may outgrow what may be locked: the
// commit that makes it so fails, and with it the member.
func (s *Server) warnMemoryLock() {
	var limit unix.Rlimit
	if !s.cfg.MemoryLock || unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) != nil {
		return
	}
	if quota := uint64(s.cfg.quotaBytes()); quota == 0 || limit.Cur < quota { //nolint:gosec // not negative
		s.log.Warn("the memlock limit is below the quota of the database: without CAP_IPC_LOCK this member stops when the database outgrows it",
			"memlock-limit-bytes", limit.Cur, "quota-backend-bytes", quota)
	}
}
