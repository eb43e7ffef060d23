package client

import (
	"context"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// Mutex is a lock that one session at a time holds. It is for one goroutine.
type Mutex struct{ place }

// Mutex is the lock of the given name.
func (s *Session) Mutex(name string) *Mutex { return &Mutex{newPlace(s, name)} }

// Lock waits for the lock. When ctx ends first, the place in the queue is
// given up.
func (m *Mutex) Lock(ctx context.Context) error {
	owner, _, err := m.join(ctx, "")
	if err != nil || m.owns(owner) {
		return err
	}
	if err := m.await(ctx); err != nil {
		m.abandon()
		return err
	}
	return nil
}

// TryLock takes the lock or returns ErrLocked at once.
func (m *Mutex) TryLock(ctx context.Context) error {
	owner, _, err := m.join(ctx, "")
	if err != nil || m.owns(owner) {
		return err
	}
	if err := m.leave(ctx); err != nil {
		return err
	}
	return ErrLocked
}

// Unlock gives the lock to the next.
func (m *Mutex) Unlock(ctx context.Context) error { return m.leave(ctx) }

// Key is the key that stands for the holder.
func (m *Mutex) Key() string { return m.key }

// Header is that of the last answer: its revision is when the lock was won.
func (m *Mutex) Header() *pb.ResponseHeader { return m.header }

// Held is a condition for transactions: still holding the lock.
func (m *Mutex) Held() *pb.Compare { return Created(m.key, Equal, m.rev) }
