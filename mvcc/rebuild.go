package mvcc

import (
	"fmt"
	"math"

	bolt "go.etcd.io/bbolt"
)

// rebuild makes the state that the file describes: one pass over the key
// bucket collects the versions of every key, then the tree is built in bulk.
func rebuild(d *disk) (*state, error) {
	st := &state{disk: d, leases: attachments{}, rev: firstRevision}
	var m meta
	var r rebuilder
	err := d.read(func(tx *bolt.Tx) (err error) {
		if m, err = readMeta(tx); err != nil {
			return err
		}
		d.summed = sumsCurrent(tx, m.applied)
		r = rebuilder{items: make(map[string]*item), garbage: &st.garbage, checks: d.walkSums(tx, 0)}
		if err := bucket(tx, BucketKey).ForEach(r.add); err != nil {
			return err
		}
		if err := r.checks.upTo(math.MaxUint64); err != nil {
			return err
		}
		return d.checkOthers(tx)
	})
	if err != nil {
		return nil, err
	}
	if !d.summed && !d.db.IsReadOnly() {
		if err := d.makeSums(); err != nil {
			return nil, err
		}
		d.summed = true
	}
	items := make([]*item, 0, len(r.items))
	for _, it := range r.items {
		items = append(items, it)
		st.leases.attach(it.lease, it.key)
	}
	sortItems(items)
	st.tree = buildTree(items)
	st.rev = max(firstRevision, r.last.main, m.scheduled, m.finished)
	st.applied, st.flushedApplied = m.applied, m.applied
	st.compact, st.finished = max(m.finished, m.scheduled), m.finished
	if m.scheduled > m.finished { // the last run ended in the middle
		st.targets, st.resumed = []Revision{m.scheduled}, m.scheduled
	}
	return st, nil
}

// rebuilder collects the versions of every key from records in file order.
type rebuilder struct {
	items   map[string]*item
	garbage *garbage
	last    stamp
	checks  *sumsWalk
}

// add takes one record. Records above a compaction may begin anywhere in the
// life of a key, so the stored version and creation count, not the history.
func (r *rebuilder) add(k, v []byte) error {
	at, err := parseStamp(k)
	if err != nil {
		return err
	}
	if err := r.checks.record(at, k, v); err != nil {
		return err
	}
	head, err := decodeHead(v)
	if err != nil {
		return fmt.Errorf("record %d.%d: %w", at.main, at.sub, err)
	}
	r.last = at
	it := r.items[stringOf(head.key)]
	fresh := it == nil
	if fresh {
		it = &item{key: string(head.key)}
		r.items[it.key] = it
	} else {
		it.older = pastOf(it)
	}
	superseded := !fresh && (it.live() || it.at.main == at.main)
	it.at, it.create, it.version, it.lease = at, head.create, head.version, head.lease
	if at.tomb {
		it.create, it.version, it.lease = 0, 0, 0
	}
	if superseded || at.tomb {
		r.garbage.push(at.main, it.key)
	}
	return nil
}
