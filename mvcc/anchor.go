package mvcc

import (
	"sync"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// anchors keep the index as it was when recent first pages were read. A client
// that pages through a range pins the revision of its first page; finding the
// index of that revision again makes its later pages as cheap as the first,
// instead of a walk over all keys at an old revision. Records are taken from
// the newest view, so that an anchor keeps none of them in memory.
type anchors struct {
	mu   sync.Mutex
	have [8]anchor
	next int // the oldest
}

type anchor struct {
	tree  tree
	rev   Revision // 0: empty
	ticks int      // since it was last used
}

// anchorTicks is how many flush periods an anchor lives unused.
const anchorTicks = 300

// keep remembers the view's index; the oldest of eight is forgotten.
func (a *anchors) keep(v *view) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.index(v.rev) < 0 {
		a.have[a.next] = anchor{tree: v.tree, rev: v.rev}
		a.next = (a.next + 1) % len(a.have)
	}
}

// find returns the index of the revision, if it is remembered.
func (a *anchors) find(rev Revision) (t tree, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := a.index(rev)
	if i < 0 {
		return tree{}, false
	}
	a.have[i].ticks = 0
	return a.have[i].tree, true
}

func (a *anchors) index(rev Revision) int {
	for i := range a.have {
		if a.have[i].rev == rev {
			return i
		}
	}
	return -1
}

// tick forgets what nobody has used for long. The flusher calls it.
func (a *anchors) tick() {
	a.forget(func(x *anchor) bool { x.ticks++; return x.ticks > anchorTicks })
}

// dropBefore forgets what a compaction overtook.
func (a *anchors) dropBefore(rev Revision) {
	a.forget(func(x *anchor) bool { return x.rev < rev })
}

// clear forgets everything, because the state was replaced.
func (a *anchors) clear() { a.forget(func(*anchor) bool { return true }) }

func (a *anchors) forget(old func(*anchor) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.have {
		if old(&a.have[i]) {
			a.have[i] = anchor{}
		}
	}
}

// rangeAnchored answers a page at a pinned revision from an anchor; ok is
// false when the ordinary way must be taken.
func (s *Store) rangeAnchored(r *pb.RangeRequest) (resp *pb.RangeResponse, ok bool) {
	then, ok := s.anchored(r)
	if !ok {
		return nil, false
	}
	resp, err := then.rangeOf(r)
	if err != nil {
		return nil, false
	}
	resp.Header.Revision = int64(s.Revision())
	return resp, true
}

// anchored returns the remembered view of an older revision that the request
// names, so that a page of it costs what a page of the newest does.
func (s *Store) anchored(r *pb.RangeRequest) (*view, bool) {
	rev := Revision(r.Revision)
	now := s.view.Load()
	if rev <= 0 || rev >= now.rev || rev < now.compact {
		return nil, false
	}
	t, ok := s.anchors.find(rev)
	if !ok {
		return nil, false
	}
	then := *now
	then.tree, then.rev = t, rev
	return &then, true
}
