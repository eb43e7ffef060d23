package mvcc

import (
	"bytes"

	"github.com/kvorum/kvorum/internal/must"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// Writer carries out one log entry. All its changes have one revision.
type Writer struct {
	s    *Store
	at   Applied
	main Revision // the revision that a change makes
	sub  int32    // how many changes there are
}

// rev is the revision that answers carry: the new one after the first change.
func (w *Writer) rev() Revision {
	if w.sub > 0 {
		return w.main
	}
	return w.main - 1
}

// Revision is what the answer to the entry carries: the entry's own revision
// once it has changed a key, the one before it until then.
func (w *Writer) Revision() Revision { return w.rev() }

// view is the unfinished entry's own picture. mu is held.
func (w *Writer) view() *view { return w.s.working(w.rev()) }

// Close ends the entry.
func (w *Writer) Close() {
	s := w.s
	s.mu.Lock()
	s.rev = w.rev()
	s.applied = w.at
	w.s = nil
	s.mu.Unlock()
}

// Put writes a key. It knows nothing of leases but attachment: whether the
// lease exists is for the caller to check.
func (w *Writer) Put(r *pb.PutRequest) (*pb.PutResponse, error) {
	w.s.counts.puts.Add(1)
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if (r.IgnoreValue || r.IgnoreLease) && !w.exists(r.Key) {
		return nil, ErrKeyNotFound
	}
	return w.put(r)
}

func (w *Writer) exists(key []byte) bool {
	it := w.s.tree.get(stringOf(key))
	return it != nil && it.live()
}

// putAnswer is a PutResponse with its header, in one allocation.
type putAnswer struct {
	resp   pb.PutResponse
	header pb.ResponseHeader
}

func (w *Writer) put(r *pb.PutRequest) (*pb.PutResponse, error) {
	s := w.s
	old := s.tree.get(stringOf(r.Key))
	existed := old != nil && old.live()
	a := &putAnswer{}
	a.resp.Header = &a.header
	value, lease := r.Value, LeaseID(r.Lease)
	if existed && (r.PrevKv || r.IgnoreValue) {
		prev, err := w.view().keyValue(old.at)
		if err != nil {
			return nil, err
		}
		if r.PrevKv {
			a.resp.PrevKv = prev
		}
		if r.IgnoreValue {
			value = prev.Value
		}
	}
	if existed && r.IgnoreLease {
		lease = old.lease
	}
	w.store(old, r.Key, value, lease)
	s.counts.putBytes.Add(int64(len(r.Key) + len(value)))
	a.header.Revision = int64(w.main)
	return &a.resp, nil
}

// store makes a new version of the key; old is what the index has of it.
func (w *Writer) store(old *item, key, value []byte, lease LeaseID) {
	s := w.s
	it := &item{at: stamp{main: w.main, sub: w.sub}, create: w.main, version: 1, lease: lease, older: pastOf(old)}
	if old == nil {
		it.key = string(key)
	} else {
		it.key = old.key
	}
	var prev []byte
	if old != nil && old.live() {
		it.create, it.version = old.create, old.version+1
		prev = w.recordBefore(old)
	}
	if old == nil || old.lease != lease {
		if old != nil {
			s.leases.detach(old.lease, old.key)
		}
		s.leases.attach(lease, it.key)
	}
	data := encodePut(it, value)
	w.commit(old, it, data)
	s.events = append(s.events, &Event{kind: EventPut, key: bytesOf(it.key), rev: w.main, record: data, prev: prev})
}

// commit puts the new version into index, tail and garbage queue.
func (w *Writer) commit(old, it *item, data []byte) {
	s := w.s
	w.sub++
	s.tree.set(it)
	s.tail.append(it.at, data)
	s.unflushedBytes += len(data)
	if !it.live() || old != nil && (old.live() || old.at.main == w.main) {
		s.garbage.push(w.main, it.key)
	}
}

// recordBefore is what an event that changes old has for its previous value, nil where it is to be read from history. What
// the entry itself has put before is no previous value: that is of the revision before.
func (w *Writer) recordBefore(old *item) []byte {
	if old.at.main == w.main {
		return nil
	}
	return w.s.tail.find(old.at)
}

// erase deletes the live key.
func (w *Writer) erase(old *item) {
	s := w.s
	stored, told := encodeTombstone(old.key, w.main)
	it := &item{key: old.key, at: stamp{main: w.main, sub: w.sub, tomb: true}, older: pastOf(old)}
	prev := w.recordBefore(old)
	s.leases.detach(old.lease, old.key)
	w.commit(old, it, stored)
	s.events = append(s.events, &Event{kind: EventDelete, key: bytesOf(old.key), rev: w.main, record: told, prev: prev})
}

// DeleteRange deletes the keys of a range.
func (w *Writer) DeleteRange(r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	w.s.counts.deletes.Add(1)
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.deleteRange(r)
}

func (w *Writer) deleteRange(r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	v := w.view()
	var found []hit
	sp, single := spanOf(r.Key, r.RangeEnd)
	if !single {
		found, _ = v.hits(sp, v.rev, page{})
	} else if it := v.tree.get(sp.from); it != nil && it.live() {
		found = []hit{{it, it.at}}
	}
	resp := &pb.DeleteRangeResponse{Deleted: int64(len(found))}
	if r.PrevKv {
		var err error
		if resp.PrevKvs, err = v.keyValues(found, false); err != nil {
			return nil, err
		}
	}
	for _, h := range found {
		w.erase(h.it)
	}
	resp.Header = &pb.ResponseHeader{Revision: int64(w.rev())}
	return resp, nil
}

// DeleteKeys deletes those of the keys that exist, in the order given, which
// must be sorted: the keys of a lease that ends.
func (w *Writer) DeleteKeys(keys [][]byte) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	for i, k := range keys {
		must.True(i == 0 || bytes.Compare(keys[i-1], k) < 0, "keys to delete are not sorted")
		if it := w.s.tree.get(stringOf(k)); it != nil && it.live() {
			w.erase(it)
		}
	}
}

// Range reads inside the entry: it sees the entry's own changes.
func (w *Writer) Range(r *pb.RangeRequest) (*pb.RangeResponse, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.view().rangeOf(r)
}

// Txn carries out a transaction. It changes nothing if it returns an error.
// leaseExists answers for the leases that puts name.
func (w *Writer) Txn(r *pb.TxnRequest, leaseExists func(LeaseID) bool) (*pb.TxnResponse, error) {
	w.s.counts.txns.Add(1)
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	t := txn{view: w.view(), w: w, leaseExists: leaseExists}
	return t.run(r)
}

// Compact makes revisions below rev unreadable, at the next Publish; the
// flusher then removes what they alone need.
func (w *Writer) Compact(rev Revision) error {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if rev <= s.compact {
		return ErrCompacted
	}
	if rev > w.rev() {
		return ErrFutureRevision
	}
	s.compact = rev
	s.targets = append(s.targets, rev)
	s.others = append(s.others, otherWrite{BucketMeta, []byte(metaScheduled), markOf(rev)})
	return nil
}

// Set writes to a bucket other than BucketKey, as durable as the entry's keys.
// The store keeps k and v.
func (w *Writer) Set(b Bucket, k, v []byte) {
	must.True(b != BucketKey, "the key bucket is written by Put")
	if v == nil {
		v = []byte{}
	}
	w.other(otherWrite{b, k, v})
}

// Delete removes a key of a bucket other than BucketKey.
func (w *Writer) Delete(b Bucket, k []byte) {
	must.True(b != BucketKey, "the key bucket is written by DeleteRange")
	w.other(otherWrite{b, k, nil})
}

func (w *Writer) other(o otherWrite) {
	w.s.mu.Lock()
	w.s.others = append(w.s.others, o)
	w.s.unflushedBytes += len(o.key) + len(o.value)
	w.s.mu.Unlock()
}

// keyValue reads and decodes one record.
func (v *view) keyValue(at stamp) (*mvccpb.KeyValue, error) {
	data, err := v.record(at)
	if err != nil {
		return nil, err
	}
	kv := &mvccpb.KeyValue{}
	return kv, decodeRecord(data, kv)
}
