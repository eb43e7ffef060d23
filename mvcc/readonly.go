package mvcc

import (
	"sync"

	bolt "go.etcd.io/bbolt"
)

// OpenForLoad opens a sound file of a stopped member without changing it. The
// Store has no keys: it is for Load and Applied, by which tools read the other
// buckets as a server does. Check the file first, with Check.
func OpenForLoad(path string) (*Store, error) {
	d, err := openDiskReadOnly(path)
	if err != nil {
		return nil, err
	}
	var m meta
	if err := d.read(func(tx *bolt.Tx) (err error) { m, err = readMeta(tx); return err }); err != nil {
		d.db.Close()
		return nil, err
	}
	st := state{disk: d, leases: attachments{}, rev: firstRevision, compact: max(m.finished, m.scheduled), finished: m.finished}
	st.applied, st.flushedApplied = m.applied, m.applied
	s := &Store{path: path, opts: Options{}.withDefaults(), wake: make(chan struct{}, 1), state: st}
	s.room = sync.NewCond(&s.mu)
	s.hub = newHub(s, s.rev)
	s.publishView()
	return s, nil
}
