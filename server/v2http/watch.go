package v2http

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/server/state"
	"github.com/kvorum/kvorum/server/state/v2keys"
)

// watch answers with the next event of a node, or with all that come. It holds
// one watch stream of the store for as long as the client stays.
func (h *Handler) watch(w http.ResponseWriter, from client, q *request) {
	var caller state.Caller
	err := h.asCaller(from, func(c state.Caller) error {
		caller = c
		return h.machine.CheckV2Read(c, q.path, q.recursive)
	})
	if err != nil {
		problemOf(err).write(w)
		return
	}
	stream := h.store.Watch(mvcc.WatchStreamOptions{})
	defer stream.Close()
	_, now, err := stream.Add(specOf(q))
	if err != nil {
		problemOf(err).write(w)
		return
	}
	if oldest := oldestEvent(h.store); q.waitIndex != 0 && q.waitIndex < oldest {
		cause := fmt.Sprintf("the requested history has been cleared [%d/%d]", oldest, q.waitIndex)
		problem{code: codeEventsCleared, cause: cause, index: uint64(now)}.write(w)
		return
	}
	h.count.watches.Add(1)
	h.count.watchers.Add(1)
	defer h.count.watchers.Add(-1)
	raftIndex, raftTerm := h.member.LogPosition()
	began := reply{index: uint64(now), hasRaft: true, raftIndex: raftIndex, raftTerm: raftTerm}
	began.header(w.Header())
	w.WriteHeader(http.StatusOK)
	out := &watchOutput{w: w, flush: http.NewResponseController(w)}
	if out.flush.Flush() != nil {
		return
	}
	h.follow(from.ctx, stream, &watcher{request: q, caller: caller, since: now}, out)
}

// oldestEvent is the first index whose event can be told with what was before it.
func oldestEvent(store *mvcc.Store) uint64 { return uint64(max(0, store.CompactRevision()+1)) }

// specOf watches the node and, recursive, all below it: in one range, so that
// the events are in order. Keys between the two are passed over.
func specOf(q *request) mvcc.WatchSpec {
	key, end := v2keys.Key(q.path), ""
	switch {
	case q.path == v2keys.Root:
		key, end = v2keys.Below(v2keys.Root)
	case q.recursive:
		_, end = v2keys.Below(q.path)
	}
	return mvcc.WatchSpec{Key: []byte(key), End: []byte(end), From: mvcc.Revision(q.waitIndex), PrevKV: true, AutoID: true}
}

// watcher is one client that waits for events.
type watcher struct {
	*request
	caller state.Caller
	since  mvcc.Revision // the index when it came: later events are live
	told   mvcc.Revision // of the last event
}

// watchOutput sends events at once.
type watchOutput struct {
	w     http.ResponseWriter
	flush *http.ResponseController
	buf   []byte
}

func (o *watchOutput) send(a *v2keys.Answer) error {
	o.buf = appendAnswer(o.buf[:0], a, time.Now())
	if _, err := o.w.Write(o.buf); err != nil {
		return err
	}
	return o.flush.Flush()
}

// follow sends events until the client goes or has had the one that it wanted.
// History that cannot be read any more ends the answer: the client asks again
// and is told so.
func (h *Handler) follow(ctx context.Context, stream *mvcc.WatchStream, wt *watcher, out *watchOutput) {
	for {
		b, err := stream.Next(ctx)
		if err != nil || b.Kind == mvcc.WatchCompacted {
			return
		}
		for _, e := range b.Events {
			a, err := h.eventFor(wt, e)
			if err != nil {
				return
			}
			if a == nil {
				continue
			}
			if h.machine.CheckV2Read(h.fresh(wt.caller), wt.path, wt.recursive) != nil {
				return
			}
			if out.send(a) != nil || !wt.stream {
				return
			}
		}
	}
}

// fresh is a caller whose identity was proven when it came: what counts is what
// it may do now.
func (h *Handler) fresh(c state.Caller) state.Caller {
	c.AuthRevision = h.machine.AuthStatus().Revision
	return c
}

// eventFor is what a watcher is told of a change, nil if nothing. An error says
// that history is gone.
func (h *Handler) eventFor(wt *watcher, e *mvcc.Event) (*v2keys.Answer, error) {
	if e.Rev() == wt.told {
		return nil, nil // one more node of a removal
	}
	path := string(e.Key()[len(v2keys.Prefix):])
	if path != wt.path && (!wt.recursive || !v2keys.IsBelow(wt.path, path)) {
		return nil, nil
	}
	a, err := v2keys.EventOf(h.store, e)
	switch {
	case errors.Is(err, v2keys.ErrDamaged):
		return nil, nil // written by somebody past the v2 API
	case a == nil || err != nil:
		return nil, err
	}
	if v2keys.IsBelow(wt.path, a.Node.Path) && v2keys.Hidden(wt.path, a.Node.Path) && e.Rev() > wt.since {
		return nil, nil
	}
	wt.told = e.Rev()
	return a, nil
}
