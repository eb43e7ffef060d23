package wal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/raft/v3/raftpb"
)

// Finding is one thing that [Inspect] found wrong.
type Finding struct {
	Path   string // of a segment, or of the directory
	Offset int64  // in the segment; -1 if it has no one place
	Text   string
	Torn   bool // a torn write at the end: the next start cuts it off
}

// Inspection is what a log holds, as far as it can be read.
type Inspection struct {
	Segments  int
	Metadata  []byte
	HardState *raftpb.HardState // the last one; nil if there is none
	Snapshots []Snapshot        // all records of snapshots, in log order
	// FirstIndex is that of the first entry in the segments, LastIndex of the
	// last entry or snapshot, with its term; 0 if there is none.
	FirstIndex, LastIndex, LastTerm uint64
	// ConfChanges are the entries that change the membership, without those that
	// were replaced later.
	ConfChanges []*raftpb.Entry
	Findings    []Finding
}

// findingsMax bounds an inspection of a log in which everything is wrong.
const findingsMax = 100

// Inspect reads all segments of a log that is not in use, without changing
// anything and with memory that does not grow with the log. Where [Open] stops
// at the first damage, it goes on with the next segment. An error means that
// the directory cannot be read.
func Inspect(fs FS, dir string) (Inspection, error) {
	var in Inspection
	names, err := listSegments(fs, dir)
	if errors.Is(err, ErrFileNotFound) {
		in.find(dir, -1, "holds no segment")
		return in, nil
	}
	if err != nil {
		return in, err
	}
	in.Segments = len(names)
	i := inspector{Inspection: &in, last: max(names[0].index, 1) - 1}
	var crc uint32
	for n, name := range names {
		if n > 0 && name.seq != names[n-1].seq+1 {
			in.find(dir, -1, fmt.Sprintf("the segments between %s and %s are missing", names[n-1], name))
			crc, i.last, i.lastTerm = 0, max(name.index, 1)-1, 0
		}
		whole, end, err := i.segment(fs, filepath.Join(dir, name.String()), crc, n == len(names)-1)
		if err != nil {
			return in, err
		}
		crc = end
		if !whole {
			crc, i.afterDamage = 0, true
		}
	}
	if hs := in.HardState; hs != nil && hs.GetCommit() > in.LastIndex && len(in.Findings) == 0 {
		in.find(dir, -1, fmt.Sprintf("the log ends at index %d but says that %d is committed: its end is missing", in.LastIndex, hs.GetCommit()))
	}
	return in, nil
}

func (in *Inspection) find(path string, offset int64, text string) {
	if len(in.Findings) < findingsMax {
		in.Findings = append(in.Findings, Finding{Path: path, Offset: offset, Text: text})
	}
}

// inspector follows the order of entries over all segments.
type inspector struct {
	*Inspection
	last, lastTerm uint64
	afterDamage    bool // entries are missing that were told already
}

// segment reads one segment; it is not whole if damage kept some from being
// read.
func (i *inspector) segment(fs FS, path string, crc uint32, last bool) (whole bool, end uint32, err error) {
	file, err := fs.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return false, 0, fmt.Errorf("open segment: %w", err)
	}
	defer file.Close()
	r, err := newSegmentReader(file, path, crc, last)
	if err != nil {
		return false, 0, err
	}
	for {
		at := r.off
		rec, err := r.next()
		switch {
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			if r.count == 0 {
				i.find(path, 0, "the segment is empty")
				return false, 0, nil
			}
			return true, r.crc, nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			torn := last && at > 0
			i.Findings = append(i.Findings, Finding{Path: path, Offset: at, Text: err.Error(), Torn: torn})
			return torn, r.crc, nil
		case err != nil:
			i.find(path, at, err.Error())
			return false, 0, nil
		}
		if err := i.add(rec, path, at); err != nil {
			i.find(path, at, err.Error())
		}
	}
}

func (i *inspector) add(rec record, path string, at int64) (err error) {
	switch rec.kind {
	case kindEntry:
		e, err := parseEntry(rec.data)
		if err != nil {
			return err
		}
		i.entry(e, path, at)
	case kindState:
		hs, err := decodeState(rec.data)
		if err != nil {
			return err
		}
		i.HardState = hs
	case kindMetadata:
		i.Metadata, err = sameMetadata(i.Metadata, rec.data)
		return err
	case kindSnapshot:
		s, err := decodeSnapshot(rec.data)
		if err != nil {
			return err
		}
		i.Snapshots = append(i.Snapshots, s)
		if s.Index > i.last {
			i.last, i.lastTerm, i.afterDamage = s.Index, s.Term, false
			i.LastIndex, i.LastTerm = s.Index, s.Term
		}
	case kindCRC:
	default:
		return fmt.Errorf("unexpected block type %d", rec.kind)
	}
	return nil
}

func (i *inspector) entry(e entryView, path string, at int64) {
	switch {
	case i.afterDamage:
		i.afterDamage = false
	case e.index > i.last+1:
		i.find(path, at, fmt.Sprintf("entry %d comes after entry %d: those between are missing", e.index, i.last))
	case e.term < i.lastTerm:
		i.find(path, at, fmt.Sprintf("entry %d has term %d after an entry of term %d", e.index, e.term, i.lastTerm))
	}
	if i.FirstIndex == 0 {
		i.FirstIndex = e.index
	}
	for n := len(i.ConfChanges); n > 0 && i.ConfChanges[n-1].GetIndex() >= e.index; n-- {
		i.ConfChanges = i.ConfChanges[:n-1]
	}
	if e.kind != raftpb.EntryNormal {
		i.ConfChanges = append(i.ConfChanges, e.entry())
	}
	i.last, i.lastTerm = e.index, e.term
	i.LastIndex, i.LastTerm = e.index, e.term
}
