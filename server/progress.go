package server

import (
	"context"
	"sync"
	"sync/atomic"
)

// progress is the applied index that readers wait on. The applier advances it
// after the store has been published; anyone may wait.
type progress struct {
	applied atomic.Uint64

	mu      sync.Mutex
	waiting []waitingReader // in no order; short
}

type waitingReader struct {
	index uint64
	ready chan struct{}
}

// advance wakes the readers that waited for an index up to applied.
func (p *progress) advance(applied uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.applied.Store(applied)
	left := p.waiting[:0]
	for _, r := range p.waiting {
		if r.index <= applied {
			close(r.ready)
		} else {
			left = append(left, r)
		}
	}
	clear(p.waiting[len(left):])
	p.waiting = left
}

// wait returns when index is applied, or the error of ctx, or ErrStopped.
func (p *progress) wait(ctx context.Context, index uint64, stopping <-chan struct{}, stopped error) error {
	ready := p.register(index)
	if ready == nil {
		return nil
	}
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-stopping:
		return stopped
	}
}

// register is nil when index is applied already.
func (p *progress) register(index uint64) chan struct{} {
	if p.applied.Load() >= index {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.applied.Load() >= index {
		return nil
	}
	ready := make(chan struct{})
	p.waiting = append(p.waiting, waitingReader{index, ready})
	return ready
}
