package raft

import (
	"encoding/binary"
	"sync/atomic"
)

// readRound is one question "how far is the log committed?" that many readers
// share. Readers join it before it is asked; joining later could give them an
// answer older than their question.
type readRound struct {
	waiters atomic.Int32  // readers that still want the answer
	done    chan struct{} // closed once index or err is set

	index Index // valid after done
	err   error // valid after done
}

func newReadRound() *readRound { return &readRound{done: make(chan struct{})} }

func (r *readRound) finish(index Index, err error) {
	r.index, r.err = index, err
	close(r.done)
}

// readRounds asks one round at a time: while one is out, the next gathers.
//
//	idle ── start ──> waiting ── a leader that may answer ──> asked ── answer ──> idle
//	                                                           │ ^
//	                                                           └─┘ no answer in retryTicks: ask with a new id
//
// A request id is never used twice, also not by a later run of this process: an
// answer to an old question would be a stale read. Within a round any of its
// own ids will do, since all were asked after its readers came.
//
// Owned by the core.
type readRounds struct {
	nonce      uint64 // differs between runs and members
	lastID     uint64 // ids handed out so far
	retryTicks int

	round   *readRound // nil: idle
	firstID uint64     // first id of the round; 0: waiting, not asked yet
	ticks   int        // since last asked
}

func (r *readRounds) idle() bool { return r.round == nil }

func (r *readRounds) start(round *readRound) {
	r.round, r.firstID, r.ticks = round, 0, 0
}

// ask returns the context of a new request for the round.
func (r *readRounds) ask() []byte {
	r.lastID++
	if r.firstID == 0 {
		r.firstID = r.lastID
	}
	r.ticks = 0
	ctx := make([]byte, 16)
	binary.BigEndian.PutUint64(ctx, r.nonce)
	binary.BigEndian.PutUint64(ctx[8:], r.lastID)
	return ctx
}

// tick reports whether the round should be asked again. A round that nobody
// waits for any more is dropped.
func (r *readRounds) tick() (again bool) {
	if r.round == nil {
		return false
	}
	if r.round.waiters.Load() == 0 {
		r.round = nil
		return false
	}
	r.ticks++
	return r.firstID != 0 && r.ticks >= r.retryTicks
}

// answer takes the round if ctx is one of its requests.
func (r *readRounds) answer(ctx []byte) *readRound {
	if r.round == nil || r.firstID == 0 || len(ctx) != 16 || binary.BigEndian.Uint64(ctx) != r.nonce {
		return nil
	}
	if id := binary.BigEndian.Uint64(ctx[8:]); id < r.firstID || id > r.lastID {
		return nil
	}
	round := r.round
	r.round = nil
	return round
}

// abandon takes the round if it was asked: its leader is gone.
func (r *readRounds) abandon() *readRound {
	if r.round == nil || r.firstID == 0 {
		return nil
	}
	round := r.round
	r.round = nil
	return round
}
