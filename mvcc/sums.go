package mvcc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"sort"
	"unsafe"

	bolt "go.etcd.io/bbolt"
)

// bbolt does not notice when its pages change on the disk. So every record has a
// checksum, in a bucket that other tools ignore, written in the transaction that
// writes the record. A record that is read from the file is checked before
// anybody gets it; the scrub and the start check all of them.
//
//	bucket kvorum_sums
//	  "at"            applied index u64, term u64: up to where the bucket is kept
//	  chunk u64       for each record whose revision/128 is chunk, in file order:
//	                  revision%128 u16, sub u32, CRC-32C u32 of bbolt key and record
//	"b" bucket 0 key      for each pair of the other buckets: CRC-32C u32 of key
//	                      and value
//
// Numbers are big endian. A file without the bucket, or one that something else
// has written to since (etcd, an offline tool: then "at" is not the applied
// position of the file), gets the checksums of what it holds when it is opened.
//
// Invariant: in a file open for writing there is one checksum for each record and
// no other.
const bucketSums Bucket = "kvorum_sums"

const (
	sumsAt        = "at"
	sumBytes      = 10
	sumsChunkBits = 7
	// sumsBatchBytes of checksums are made per transaction for a file without.
	sumsBatchBytes = 4 << 20
)

// Damage is a place in the database file that does not hold what was written
// there. It wraps ErrCorrupt.
type Damage struct {
	File   string
	Offset int64  // of the record, or of its checksum if there is no record
	Key    []byte // as the file has it now; nil if there is no record
	Rev    Revision
	What   string
}

func (d *Damage) Error() string {
	return fmt.Sprintf("%v: %s at offset %d: key %.80q, revision %d: %s", ErrCorrupt, d.File, d.Offset, d.Key, d.Rev, d.What)
}

// Unwrap makes a Damage an ErrCorrupt.
func (d *Damage) Unwrap() error { return ErrCorrupt }

func sumOf(k, v []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Update(0, table, k), table, v)
}

func chunkOf(rev Revision) uint64 { return uint64(rev) >> sumsChunkBits }

func chunkKey(chunk uint64) []byte { return binary.BigEndian.AppendUint64(nil, chunk) }

func appendSum(dst []byte, at stamp, sum uint32) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(at.main&(1<<sumsChunkBits-1)))
	dst = binary.BigEndian.AppendUint32(dst, uint32(at.sub))
	return binary.BigEndian.AppendUint32(dst, sum)
}

// sumPlace makes the first six bytes of an entry comparable.
func sumPlace(entry []byte) uint64 {
	return uint64(binary.BigEndian.Uint16(entry))<<32 | uint64(binary.BigEndian.Uint32(entry[2:]))
}

func placeOf(at stamp) uint64 {
	return uint64(at.main&(1<<sumsChunkBits-1))<<32 | uint64(uint32(at.sub))
}

// sums checks records against the checksums, in one transaction. The zero value
// of bucket checks nothing.
type sums struct {
	bucket  *bolt.Bucket
	disk    *disk
	chunk   uint64
	entries []byte // of chunk
	next    int    // the entry after the last one found
}

// sums begins to check. Records may be given in any order, but neighbours are
// cheapest.
func (d *disk) sums(tx *bolt.Tx) sums {
	if !d.summed {
		return sums{}
	}
	return sums{bucket: bucket(tx, bucketSums), disk: d, chunk: math.MaxUint64}
}

// check returns a Damage unless v is what was written under k, whose stamp is at.
func (s *sums) check(at stamp, k, v []byte) error {
	if s.bucket == nil {
		return nil
	}
	if chunk := chunkOf(at.main); chunk != s.chunk {
		var key [8]byte
		binary.BigEndian.PutUint64(key[:], chunk)
		s.enter(chunk, s.bucket.Get(key[:]))
	}
	entry := s.find(placeOf(at))
	switch {
	case entry == nil:
		return s.damage(at.main, v, v, "there is no checksum for the record")
	case binary.BigEndian.Uint32(entry[6:]) != sumOf(k, v):
		return s.damage(at.main, v, v, fmt.Sprintf("the checksum is %08x and should be %08x", sumOf(k, v), binary.BigEndian.Uint32(entry[6:])))
	}
	return nil
}

func (s *sums) enter(chunk uint64, entries []byte) { s.chunk, s.entries, s.next = chunk, entries, 0 }

// find returns the entry of a place, nil if there is none.
func (s *sums) find(place uint64) []byte {
	at := func(i int) []byte { return s.entries[i*sumBytes : (i+1)*sumBytes] }
	n := len(s.entries) / sumBytes
	if s.next >= n || sumPlace(at(s.next)) != place {
		s.next = sort.Search(n, func(i int) bool { return sumPlace(at(i)) >= place })
		if s.next == n || sumPlace(at(s.next)) != place {
			return nil
		}
	}
	s.next++
	return at(s.next - 1)
}

// damage tells of a damaged record, or of a missing one if record is nil. where
// are bytes of the file.
func (s *sums) damage(rev Revision, where, record []byte, what string) error {
	d := &Damage{File: s.disk.db.Path(), Offset: s.offset(where), Rev: rev, What: what}
	if head, err := decodeHead(record); err == nil {
		d.Key = bytes.Clone(head.key)
	}
	if s.disk.damaged != nil {
		s.disk.damaged(d)
	}
	return d
}

// offset is where in the file the bytes are that bbolt has mapped into memory.
func (s *sums) offset(b []byte) int64 {
	if len(b) == 0 {
		return -1
	}
	return int64(uintptr(unsafe.Pointer(unsafe.SliceData(b))) - s.disk.db.Info().Data) //nolint:gosec // both lie in the mapping
}

// summing writes the checksums of records that are put in file order.
type summing struct {
	bucket *bolt.Bucket
	chunk  uint64
	added  []byte // to chunk
}

func newSumming(tx *bolt.Tx) *summing {
	b := bucket(tx, bucketSums)
	b.FillPercent = fillPercent
	return &summing{bucket: b}
}

func (s *summing) add(at stamp, k, v []byte) error {
	if chunk := chunkOf(at.main); chunk != s.chunk {
		if err := s.end(); err != nil {
			return err
		}
		s.chunk = chunk
	}
	s.added = appendSum(s.added, at, sumOf(k, v))
	return nil
}

// end puts what was added behind what the chunk has.
func (s *summing) end() error {
	if len(s.added) == 0 {
		return nil
	}
	key := chunkKey(s.chunk)
	have := s.bucket.Get(key)
	all := append(append(make([]byte, 0, len(have)+len(s.added)), have...), s.added...)
	s.added = s.added[:0]
	if err := s.bucket.Put(key, all); err != nil {
		return fmt.Errorf("write checksums: %w", err)
	}
	return nil
}

// dropSums removes the checksums of records that are removed; drops are sorted.
func dropSums(tx *bolt.Tx, drops []stamp) error {
	b := bucket(tx, bucketSums)
	b.FillPercent = fillPercent
	for len(drops) > 0 {
		chunk := chunkOf(drops[0].main)
		n := sort.Search(len(drops), func(i int) bool { return chunkOf(drops[i].main) > chunk })
		if err := dropFrom(b, chunk, drops[:n]); err != nil {
			return fmt.Errorf("remove checksums: %w", err)
		}
		drops = drops[n:]
	}
	return nil
}

func dropFrom(b *bolt.Bucket, chunk uint64, drops []stamp) error {
	key := chunkKey(chunk)
	have := b.Get(key)
	left := make([]byte, 0, len(have))
	for len(have) >= sumBytes {
		entry := have[:sumBytes]
		have = have[sumBytes:]
		for len(drops) > 0 && placeOf(drops[0]) < sumPlace(entry) {
			drops = drops[1:]
		}
		if len(drops) == 0 || placeOf(drops[0]) != sumPlace(entry) {
			left = append(left, entry...)
		}
	}
	if len(left) == 0 {
		return b.Delete(key)
	}
	return b.Put(key, left)
}

// sumsCurrent reports whether the file's checksums speak of all that it holds.
func sumsCurrent(tx *bolt.Tx, a Applied) bool {
	b := tx.Bucket([]byte(bucketSums))
	return b != nil && bytes.Equal(b.Get([]byte(sumsAt)), positionOf(a))
}

func positionOf(a Applied) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, a.Index), a.Term)
}

// voidSums makes the next open forget the checksums. A tool that changes the file
// calls it.
func voidSums(tx *bolt.Tx) error {
	if b := tx.Bucket([]byte(bucketSums)); b != nil {
		return b.Delete([]byte(sumsAt))
	}
	return nil
}

// makeSums gives a file checksums of what it holds.
func (d *disk) makeSums() error {
	err := d.db.Update(func(tx *bolt.Tx) error {
		if err := tx.DeleteBucket([]byte(bucketSums)); err != nil {
			return err
		}
		_, err := tx.CreateBucket([]byte(bucketSums))
		return err
	})
	next, more := Revision(0), true
	for err == nil && more {
		err = d.db.Update(func(tx *bolt.Tx) error {
			next, more, err = sumSome(tx, next)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("make checksums: %w", err)
	}
	return nil
}

// sumSome makes the checksums of some revisions, and in the end the mark.
func sumSome(tx *bolt.Tx, from Revision) (next Revision, more bool, err error) {
	w := newSumming(tx)
	c := bucket(tx, BucketKey).Cursor()
	done := 0
	for k, v := c.Seek(stamp{main: from}.appendKey(nil)); k != nil; k, v = c.Next() {
		at, err := parseStamp(k)
		if err != nil {
			return 0, false, err
		}
		if done >= sumsBatchBytes && chunkOf(at.main) != w.chunk {
			return at.main, true, w.end()
		}
		if err := w.add(at, k, v); err != nil {
			return 0, false, err
		}
		done += sumBytes
	}
	m, err := readMeta(tx)
	if err != nil {
		return 0, false, err
	}
	return 0, false, errors.Join(w.end(), sumOthers(tx), markSums(tx, m.applied))
}

func markSums(tx *bolt.Tx, a Applied) error {
	if err := bucket(tx, bucketSums).Put([]byte(sumsAt), positionOf(a)); err != nil {
		return fmt.Errorf("write position of checksums: %w", err)
	}
	return nil
}

// copySums brings the checksums of the last revisions to another file.
func (d *disk) copySums(to *disk, from Revision) error {
	return d.read(func(tx *bolt.Tx) error {
		return to.db.Update(func(fresh *bolt.Tx) error {
			c := bucket(tx, bucketSums).Cursor()
			for k, v := c.Seek(chunkKey(chunkOf(from))); isChunk(k); k, v = c.Next() {
				if err := bucket(fresh, bucketSums).Put(k, v); err != nil {
					return fmt.Errorf("copy checksums: %w", err)
				}
			}
			return nil
		})
	})
}

// sumsWalk checks all records of a part of the file, and that none is missing.
type sumsWalk struct {
	sums
	chunks *bolt.Cursor
	key    []byte // of the chunk that comes next
	value  []byte
	left   int // entries of the current chunk whose records did not come yet
}

// walkSums begins with a chunk.
func (d *disk) walkSums(tx *bolt.Tx, chunk uint64) *sumsWalk {
	w := &sumsWalk{sums: d.sums(tx)}
	if w.bucket != nil {
		w.chunks = w.bucket.Cursor()
		w.key, w.value = w.chunks.Seek(chunkKey(chunk))
	}
	return w
}

// record takes the next record of the file.
func (w *sumsWalk) record(at stamp, k, v []byte) error {
	if w.bucket == nil {
		return nil
	}
	if chunk := chunkOf(at.main); chunk != w.chunk {
		if err := w.upTo(chunk); err != nil {
			return err
		}
		if isChunk(w.key) && binary.BigEndian.Uint64(w.key) == chunk {
			w.enter(chunk, w.value)
			w.left = len(w.value) / sumBytes
			w.key, w.value = w.chunks.Next()
		} else {
			w.enter(chunk, nil)
		}
	}
	w.left--
	return w.check(at, k, v)
}

// upTo ends the current chunk; the records of all before chunk must have come.
func (w *sumsWalk) upTo(chunk uint64) error {
	if w.bucket == nil {
		return nil
	}
	if w.left != 0 {
		return w.missing(w.chunk, w.entries, w.left)
	}
	if isChunk(w.key) && binary.BigEndian.Uint64(w.key) < chunk {
		return w.missing(binary.BigEndian.Uint64(w.key), w.value, len(w.value)/sumBytes)
	}
	return nil
}

func (w *sumsWalk) missing(chunk uint64, where []byte, n int) error {
	from := Revision(chunk << sumsChunkBits)
	return w.damage(from, where, nil, fmt.Sprintf("of the revisions %d to %d there are %d records too few", from, from+1<<sumsChunkBits-1, n))
}

// otherSumKey names the checksum of a pair in a bucket other than BucketKey. It
// sorts behind all chunks, which are below 2^56.
func otherSumKey(b Bucket, k []byte) []byte {
	return append(append(append([]byte{'b'}, b...), 0), k...)
}

func isChunk(k []byte) bool { return len(k) == 8 && k[0] == 0 }

// position reports whether a pair tells how far the file is, which the mark of
// the checksums repeats.
func position(b Bucket, k []byte) bool {
	return b == BucketMeta && (string(k) == metaIndex || string(k) == metaTerm)
}

// sumOther follows a change of a bucket other than BucketKey; nil is a deletion.
func sumOther(tx *bolt.Tx, b Bucket, k, v []byte) error {
	if position(b, k) {
		return nil
	}
	key := otherSumKey(b, k)
	var err error
	if v == nil {
		err = bucket(tx, bucketSums).Delete(key)
	} else {
		err = bucket(tx, bucketSums).Put(key, binary.BigEndian.AppendUint32(nil, sumOf(k, v)))
	}
	if err != nil {
		return fmt.Errorf("write checksum for bucket %s: %w", b, err)
	}
	return nil
}

// sumOthers makes the checksums of all buckets other than BucketKey.
func sumOthers(tx *bolt.Tx) error {
	for _, b := range allBuckets() {
		if b == BucketKey {
			continue
		}
		err := bucket(tx, b).ForEach(func(k, v []byte) error { return sumOther(tx, b, k, v) })
		if err != nil {
			return err
		}
	}
	return nil
}

// checkOthers checks all buckets other than BucketKey.
func (d *disk) checkOthers(tx *bolt.Tx) error {
	s := d.sums(tx)
	if s.bucket == nil {
		return nil
	}
	for _, b := range allBuckets() {
		if b == BucketKey {
			continue
		}
		if err := s.checkBucket(b, bucket(tx, b)); err != nil {
			return err
		}
	}
	return nil
}

// checkBucket goes through the pairs and their checksums side by side: both are
// in the order of the keys.
func (s *sums) checkBucket(b Bucket, pairs *bolt.Bucket) error {
	prefix := otherSumKey(b, nil)
	c := s.bucket.Cursor()
	sumKey, sum := c.Seek(prefix)
	err := pairs.ForEach(func(k, v []byte) error {
		switch {
		case position(b, k):
			return nil
		case !bytes.Equal(sumKey, otherSumKey(b, k)):
			return s.damageOther(b, k, v, "the key and its checksum do not match")
		case len(sum) != 4 || binary.BigEndian.Uint32(sum) != sumOf(k, v):
			return s.damageOther(b, k, v, "the checksum does not match")
		}
		sumKey, sum = c.Next()
		return nil
	})
	if err == nil && bytes.HasPrefix(sumKey, prefix) {
		return s.damageOther(b, bytes.TrimPrefix(sumKey, prefix), sum, "the key is missing")
	}
	return err
}

func (s *sums) damageOther(b Bucket, k, where []byte, what string) error {
	d := &Damage{File: s.disk.db.Path(), Offset: s.offset(where), Key: bytes.Clone(k), What: fmt.Sprintf("bucket %s: %s", b, what)}
	if s.disk.damaged != nil {
		s.disk.damaged(d)
	}
	return d
}
