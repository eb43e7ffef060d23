package mvcc

import (
	"sync"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// anchors keep the views that recent first pages were read from. A client that
// pages through a range pins the revision of its first page; finding the view
// of that revision again makes its later pages as cheap as the first, instead
// of a walk over all keys at an old revision.
type anchors struct {
	mu    sync.Mutex
	views [8]*view
	next  int
}

// keep remembers the view; the oldest of eight is forgotten.
func (a *anchors) keep(v *view) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, have := range a.views {
		if have != nil && have.rev == v.rev {
			return
		}
	}
	a.views[a.next] = v
	a.next = (a.next + 1) % len(a.views)
}

// find returns the view that was newest at the revision, if it is remembered.
func (a *anchors) find(rev Revision) *view {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, v := range a.views {
		if v != nil && v.rev == rev {
			return v
		}
	}
	return nil
}

// clear forgets all views, because the file behind them was replaced.
func (a *anchors) clear() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.views = [8]*view{}
}

// dropBefore forgets views that a compaction overtook.
func (a *anchors) dropBefore(rev Revision) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, v := range a.views {
		if v != nil && v.rev < rev {
			a.views[i] = nil
		}
	}
}

// rangeAnchored answers from a remembered view. An error means only that the
// ordinary way must be taken.
func (s *Store) rangeAnchored(v *view, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	now := s.view.Load()
	if v.rev < now.compact || v.disk != now.disk {
		return nil, errStale
	}
	resp, err := v.rangeOf(r)
	if err != nil {
		return nil, err
	}
	resp.Header.Revision = int64(now.rev)
	return resp, nil
}
