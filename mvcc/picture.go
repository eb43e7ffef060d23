package mvcc

import "github.com/kvorum/kvorum/proto/mvccpb"

// Picture reads keys by name at one revision. It is valid only inside the
// function that it is handed to; what it returns is immutable and stays.
type Picture struct{ v *view }

// Look runs read on the newest published picture, and once more on a newer one
// when a compaction has overtaken it: read must have no other effects. Any
// goroutine may call it.
func Look[T any](s *Store, read func(Picture) (T, error)) (T, error) {
	return settled(s, 0, func(v *view) (T, error) { return read(Picture{v}) })
}

// Look runs read on the state inside the entry, the entry's own changes
// included. read must not write.
func (w *Writer) Look(read func(Picture) error) error {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return read(Picture{w.view()})
}

// Next is the revision that the next change inside the entry will have.
func (w *Writer) Next() Revision { return w.main }

// PutKey writes a key with the lease that it is to hang on, 0 for none. Whether
// the lease exists is for the caller to check. The store copies key and value.
func (w *Writer) PutKey(key string, value []byte, lease LeaseID) {
	w.s.counts.puts.Add(1)
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.store(w.s.tree.get(key), bytesOf(key), value, lease)
}

// Revision is the newest revision of the picture.
func (p Picture) Revision() Revision { return p.v.rev }

// Get returns the key as it is, nil if it does not exist.
func (p Picture) Get(key string) (*mvccpb.KeyValue, error) {
	it := p.v.tree.get(key)
	if it == nil || !it.live() {
		return nil, nil
	}
	return p.v.keyValue(it.at)
}

// Has reports whether any key of [from, to) exists. It costs O(log keys).
func (p Picture) Has(from, to string) bool { return p.v.tree.count(span{from: from, to: to}) > 0 }

// List returns keys of [from, to) in order. choose is asked about each key that
// it comes to: whether the key is wanted, and from which later key to go on, ""
// being the next one. So a list that leaves out whole stretches of keys costs
// O(log keys) for each of them, however long they are.
func (p Picture) List(from, to string, choose func(key string) (wanted bool, next string)) ([]*mvccpb.KeyValue, error) {
	var found []hit
	for from != "" {
		sp := span{from: from, to: to}
		from = ""
		p.v.tree.ascend(sp, true, func(it *item) bool {
			wanted, next := choose(it.key)
			if wanted {
				found = append(found, hit{it, it.at})
			}
			from = next
			return next == ""
		})
	}
	return p.v.keyValues(found, false)
}

// Keys returns the names and the leases of the keys of [from, to), in order,
// without reading their values.
func (p Picture) Keys(from, to string) (keys [][]byte, leases []LeaseID) {
	p.v.tree.ascend(span{from: from, to: to}, true, func(it *item) bool {
		keys, leases = append(keys, bytesOf(it.key)), append(leases, it.lease)
		return true
	})
	return keys, leases
}
