package mvcc

import (
	"hash"
	"hash/crc32"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// HashKV is the hash of the key space up to a revision. Members that agree
// have equal hashes for equal HashRevision and CompactRevision.
type HashKV struct {
	Hash            uint32
	CompactRevision Revision
	HashRevision    Revision // what was asked for, resolved
	Revision        Revision // newest at the time
}

// hashesKept is how many compaction hashes are remembered.
const hashesKept = 10

func newCRC() hash.Hash32 { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }

// HashKV hashes the records up to the revision, 0 for the newest, none for a negative one: CRC-32C over
// the name of the bucket and then every stored key and record, without those
// that compaction removes, whether it has done so yet or not.
func (s *Store) HashKV(rev Revision) (HashKV, error) {
	v, tx, err := s.steady()
	if err != nil {
		return HashKV{}, err
	}
	defer tx.Rollback()
	at, err := v.hashable(rev)
	if err != nil {
		return HashKV{}, err
	}
	if stored, ok := s.storedHash(at); ok {
		stored.Revision = v.rev
		return stored, nil
	}
	sum, err := v.hashKV(tx, at, v.compact)
	return HashKV{Hash: sum, CompactRevision: v.compact, HashRevision: at, Revision: v.rev}, err
}

// hashable returns the revision that a request's revision means. A negative one means itself, below all records.
func (v *view) hashable(rev Revision) (Revision, error) {
	if rev < 0 {
		return rev, nil
	}
	return v.readable(rev)
}

// steady returns the newest view and a transaction on the file that holds all
// of it and lacks nothing that the view can read.
func (s *Store) steady() (*view, *bolt.Tx, error) {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	if s.closed.Load() {
		return nil, nil, ErrClosed
	}
	v := s.view.Load()
	if err := s.flush(); err != nil {
		return nil, nil, err
	}
	tx, err := v.disk.db.Begin(false)
	return v, tx, err
}

func (s *Store) storedHash(rev Revision) (HashKV, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.hashes {
		if h.HashRevision == rev {
			return h, true
		}
	}
	return HashKV{}, false
}

// hashKV hashes the records up to rev as a member compacted to compact has them.
func (v *view) hashKV(tx *bolt.Tx, rev, compact Revision) (uint32, error) {
	// A record up to compact counts if its key still has it at rev; if no key
	// exists then, if compaction leaves it.
	needed := rev
	if _, n := v.hits(span{open: true}, rev, page{none: true}); n == 0 {
		needed = compact
	}
	h := newCRC()
	h.Write([]byte(BucketKey))
	c := bucket(tx, BucketKey).Cursor()
	for k, data := c.First(); k != nil; k, data = c.Next() {
		at, err := parseStamp(k)
		if err != nil {
			return 0, err
		}
		if at.main > rev {
			break
		}
		if at.main <= compact {
			old, err := v.outdated(at, data, needed)
			if err != nil {
				return 0, err
			}
			if old {
				continue
			}
		}
		h.Write(k)
		h.Write(data)
	}
	return h.Sum32(), nil
}

// outdated reports whether the record is not what its key has at the revision;
// a tombstone always is.
func (v *view) outdated(at stamp, data []byte, rev Revision) (bool, error) {
	head, err := decodeHead(data)
	if err != nil {
		return false, err
	}
	it := v.tree.get(stringOf(head.key))
	if it == nil {
		return true, nil
	}
	newest, ok := it.stampAt(rev)
	return !ok || newest != at, nil
}

// Hash is CRC-32C over everything in the file except what members may differ
// in: the applied position and the storage version.
func (s *Store) Hash() (uint32, error) {
	_, tx, err := s.steady()
	if err != nil {
		return 0, err
	}
	defer tx.Rollback()
	return hashFile(tx, func(b Bucket, k []byte) bool {
		return b == bucketSums || b == BucketMeta && (string(k) == metaIndex || string(k) == metaTerm || string(k) == metaVersion)
	})
}

// hashFile hashes all buckets in name order but for the pairs excepted; a nil key
// stands for a whole bucket.
func hashFile(tx *bolt.Tx, except func(b Bucket, k []byte) bool) (uint32, error) {
	h := newCRC()
	err := tx.ForEach(func(name []byte, b *bolt.Bucket) error {
		if except(Bucket(name), nil) {
			return nil
		}
		h.Write(name)
		return b.ForEach(func(k, v []byte) error {
			if !except(Bucket(name), k) {
				h.Write(k)
				h.Write(v)
			}
			return nil
		})
	})
	return h.Sum32(), err
}

// hashCompaction remembers the hash that all members have at a compaction
// that is about to begin. flushMu is held.
func (s *Store) hashCompaction(target Revision) error {
	s.mu.Lock()
	v := *s.view.Load()
	previous := s.finished
	s.mu.Unlock()
	return v.disk.read(func(tx *bolt.Tx) error {
		sum, err := v.hashKV(tx, target, previous)
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.hashes) == hashesKept {
			s.hashes = s.hashes[1:]
		}
		s.hashes = append(s.hashes, HashKV{Hash: sum, CompactRevision: previous, HashRevision: target})
		return nil
	})
}

// CompactionHashes returns the hashes of the last compactions, oldest first;
// none unless Options.CompactHashes is set. They are of this process: a restart
// forgets them.
func (s *Store) CompactionHashes() []HashKV {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.hashes)
}
