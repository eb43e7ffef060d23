package v2keys

import (
	"fmt"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// removal is what a removal leaves beside the tombstones.
type removal struct {
	action Action
	path   string // of the head
}

func (r removal) encode() []byte { return append([]byte{byte(r.action)}, r.path...) }

func decodeRemoval(b []byte) (removal, error) {
	if len(b) < 2 || !Action(b[0]).Removes() || b[1] != '/' {
		return removal{}, fmt.Errorf("%w: %q", ErrDamaged, removalKey)
	}
	return removal{action: Action(b[0]), path: string(b[1:])}, nil
}

// EventOf is what v2 watchers are told of a change of a stored node; nil if
// they are told nothing. The event must have come to a watcher with PrevKV. Of
// a revision that removes several nodes each gives the same answer, that of the
// head. The error is ErrDamaged or one of reading history.
func EventOf(store *mvcc.Store, e *mvcc.Event) (*Answer, error) {
	if e.Kind() == mvcc.EventDelete {
		return removalAt(store, e)
	}
	var told mvccpb.Event
	if err := told.UnmarshalVTUnsafe(e.Encoded(true)); err != nil {
		return nil, fmt.Errorf("decode event of %q: %w", e.Key(), err)
	}
	s, err := decode(told.Kv)
	if err != nil {
		return nil, err
	}
	if s.flags&(flagSilent|flagAside) != 0 {
		return nil, nil
	}
	s.Modified = e.Rev()
	a := &Answer{Action: s.action, Node: &s.Node, Index: e.Rev()}
	if told.PrevKv != nil {
		prev, err := decode(told.PrevKv)
		if err != nil {
			return nil, err
		}
		a.Prev = &prev.Node
	}
	return a, nil
}

// removalAt is the removal that a tombstone is part of.
func removalAt(store *mvcc.Store, e *mvcc.Event) (*Answer, error) {
	head := removal{action: ActionDelete, path: string(e.Key()[len(Prefix):])}
	kv, err := at(store, removalKey, e.Rev())
	if err != nil {
		return nil, err
	}
	// Who deletes past this package leaves no note.
	if kv != nil && mvcc.Revision(kv.ModRevision) == e.Rev() {
		if head, err = decodeRemoval(kv.Value); err != nil {
			return nil, err
		}
	}
	a := &Answer{Action: head.action, Node: &Node{Path: head.path, Modified: e.Rev()}, Index: e.Rev()}
	kv, err = at(store, Key(head.path), e.Rev()-1)
	if kv == nil || err != nil {
		return a, err
	}
	prev, err := decode(kv)
	if err != nil {
		return nil, err
	}
	a.Prev = &prev.Node
	a.Node.Dir, a.Node.Created = prev.Dir, prev.Created
	return a, nil
}

// at reads a key as it was, nil if it did not exist.
func at(store *mvcc.Store, key string, rev mvcc.Revision) (*mvccpb.KeyValue, error) {
	resp, err := store.Range(&pb.RangeRequest{Key: []byte(key), Revision: int64(rev)})
	if err != nil || len(resp.Kvs) == 0 {
		return nil, err
	}
	return resp.Kvs[0], nil
}
