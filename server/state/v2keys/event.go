package v2keys

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// removal is what a removal leaves beside the tombstones: all that watchers are
// told of its head but what was there before.
type removal struct {
	action  Action
	dir     bool
	created mvcc.Revision
	path    string
}

// encode gives action, flags, created index and path.
func (r removal) encode() []byte {
	b := []byte{byte(r.action), 0}
	if r.dir {
		b[1] = flagDir
	}
	b = binary.AppendUvarint(b, uint64(r.created))
	return append(b, r.path...)
}

func decodeRemoval(b []byte) (removal, error) {
	if len(b) > 2 && Action(b[0]).Removes() && b[1]&^flagDir == 0 {
		created, n := binary.Uvarint(b[2:])
		if n > 0 && len(b) > 2+n && b[2+n] == '/' {
			return removal{Action(b[0]), b[1] == flagDir, mvcc.Revision(created), string(b[2+n:])}, nil
		}
	}
	return removal{}, fmt.Errorf("%w: %q", ErrDamaged, removalKey)
}

// EventOf is what v2 watchers are told of a change of a stored node; nil if
// they are told nothing. The event must have come to a watcher with PrevKV. Of
// a revision that removes several nodes each gives the same answer, that of the
// head. The error is ErrDamaged, or one of reading history, such as
// mvcc.ErrCompacted.
func EventOf(store *mvcc.Store, e *mvcc.Event) (*Answer, error) {
	var told mvccpb.Event
	if err := told.UnmarshalVTUnsafe(e.Encoded(true)); err != nil {
		return nil, fmt.Errorf("decode event of %q: %w", e.Key(), err)
	}
	if e.Kind() == mvcc.EventDelete {
		return removalAt(store, e, told.PrevKv)
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

// removalAt is the removal that a tombstone is part of; own is what the key of
// the tombstone was.
func removalAt(store *mvcc.Store, e *mvcc.Event, own *mvccpb.KeyValue) (*Answer, error) {
	path := string(e.Key()[len(Prefix):])
	note, err := at(store, removalKey, e.Rev())
	if err != nil {
		return nil, err
	}
	head := removal{action: ActionDelete, path: path}
	// Who deletes past this package leaves no note.
	if note != nil && mvcc.Revision(note.ModRevision) == e.Rev() {
		if head, err = decodeRemoval(note.Value); err != nil {
			return nil, err
		}
	}
	a := &Answer{Action: head.action, Index: e.Rev(), Node: &Node{Path: head.path, Dir: head.dir, Created: head.created, Modified: e.Rev()}}
	if head.path != path {
		own, err = at(store, Key(head.path), e.Rev()-1)
	}
	switch {
	case errors.Is(err, mvcc.ErrCompacted), err == nil && own == nil:
		return a, nil // told without what was before
	case err != nil:
		return nil, err
	}
	prev, err := decode(own)
	if err != nil {
		return nil, err
	}
	a.Prev = &prev.Node
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
