package server

import (
	"sync/atomic"
	"time"
)

// idSource draws IDs for requests and leases that no other member draws and
// that this member does not draw again after a restart.
//
//	 16 bits    40 bits       8 bits
//	+---------+-------------+---------+
//	| member  | start in ms | counter |   the counter may run into the time
//	+---------+-------------+---------+
type idSource struct {
	prefix uint64
	suffix atomic.Uint64
}

func newIDSource(member uint64, start time.Time) *idSource {
	const millisMask = 1<<40 - 1
	s := &idSource{prefix: member << 48}
	s.suffix.Store((uint64(start.UnixMilli()) & millisMask) << 8)
	return s
}

// next is never 0.
func (s *idSource) next() uint64 {
	const suffixMask = 1<<48 - 1
	for {
		if id := s.prefix | s.suffix.Add(1)&suffixMask; id != 0 {
			return id
		}
	}
}

// nextLease is a positive lease ID.
func (s *idSource) nextLease() int64 {
	for {
		if id := int64(s.next() &^ (1 << 63)); id != 0 {
			return id
		}
	}
}
