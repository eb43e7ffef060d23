package mvcc

import (
	"slices"
	"sort"
	"unsafe"
)

// item is what the index holds of one key. Items are immutable once they are
// in a published tree; a change makes a new one. 64 bytes: one size class.
type item struct {
	key     string
	at      stamp    // the newest version
	create  Revision // of the newest version; 0 for a tombstone
	version int64    // of the newest version; 0 for a tombstone
	lease   LeaseID
	older   *past // nil when there is none
}

// past holds the versions of a key before the newest, oldest first. The slice
// of a newer item may share the array of an older one: the writer only appends
// behind what readers can see.
type past struct{ stamps []stamp }

// live reports whether the key exists.
func (it *item) live() bool { return !it.at.tomb }

// stampAt returns the newest version at or before the revision; ok is false if
// there is none or the key was deleted then.
func (it *item) stampAt(rev Revision) (at stamp, ok bool) {
	at, ok = it.versionAt(rev)
	return at, ok && !at.tomb
}

// versionAt is stampAt, but counts a tombstone as a version.
func (it *item) versionAt(rev Revision) (at stamp, ok bool) {
	if it.at.main <= rev {
		return it.at, true
	}
	if it.older == nil {
		return stamp{}, false
	}
	s := it.older.stamps
	i := sort.Search(len(s), func(i int) bool { return s[i].main > rev })
	if i == 0 {
		return stamp{}, false
	}
	return s[i-1], true
}

// pastOf returns the history of a version that follows it; it may be nil.
func pastOf(it *item) *past {
	if it == nil {
		return nil
	}
	if it.older == nil {
		return &past{[]stamp{it.at}}
	}
	return &past{append(it.older.stamps, it.at)}
}

// trim drops the versions that a compaction to rev removes. It returns the
// item without them (nil if nothing is left) and the dropped stamps. held says
// that a tombstone stays only because it is at rev itself: the next compaction
// must look again.
func (it *item) trim(rev Revision) (left *item, dropped []stamp, held bool) {
	var all []stamp
	if it.older != nil {
		all = it.older.stamps
	}
	all = append(slices.Clip(all), it.at)
	n := sort.Search(len(all), func(i int) bool { return all[i].main > rev }) // all[:n] are at or before rev
	if n == 0 {
		return it, nil, false
	}
	last := all[n-1]
	held = last.tomb && last.main == rev
	keep := n - 1
	if last.tomb && !held {
		keep = n
	}
	switch {
	case keep == 0:
		return it, nil, held
	case keep == len(all):
		return nil, all, false
	}
	trimmed := *it
	trimmed.older = nil
	if rest := all[keep : len(all)-1]; len(rest) > 0 {
		trimmed.older = &past{slices.Clone(rest)}
	}
	return &trimmed, all[:keep], held
}

// bytesOf returns the bytes of an immutable string without a copy. Nobody may
// write to them.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// stringOf returns bytes as a string without a copy, for a lookup that does
// not keep it.
func stringOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
