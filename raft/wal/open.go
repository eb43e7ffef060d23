package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/kvorum/kvorum/internal/crash"
	"github.com/kvorum/kvorum/internal/plant"
	"go.etcd.io/raft/v3/raftpb"
)

// Contents is what a log holds after a snapshot.
type Contents struct {
	Metadata  []byte
	HardState *raftpb.HardState // nil if the log has none
	// Entries follow the snapshot without a gap; of several with one index only
	// the last appended is here.
	Entries []*raftpb.Entry
	// Repaired: a torn write was cut off; what was cut lies beside the segment, in
	// a file of its name, the position in hexadecimal and the ending .broken.
	Repaired bool
}

// Open opens the log in dir for appending and reads what follows the snapshot
// at, usually the last of [ValidSnapshots]. A torn write at the end is cut off,
// once; damage is refused.
func Open(fs FS, dir string, at Snapshot) (*Log, Contents, error) {
	l, c, err := open(fs, dir, at)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		return l, c, err
	}
	if err := repair(fs, dir); err != nil {
		return nil, Contents{}, fmt.Errorf("failed to repair WAL: %w", err)
	}
	l, c, err = open(fs, dir, at)
	if err != nil {
		return nil, Contents{}, fmt.Errorf("failed to read WAL, cannot be repaired: %w", err)
	}
	c.Repaired = true
	return l, c, nil
}

// Read reads what follows the snapshot at, without locks and without writing.
// A torn write at the end is taken for the end. For tools; the log must not be
// in use.
func Read(fs FS, dir string, at Snapshot) (Contents, error) {
	names, err := listSegments(fs, dir)
	if err != nil {
		return Contents{}, err
	}
	if names, err = segmentsFrom(names, at.Index); err != nil {
		return Contents{}, err
	}
	s := newScan(at)
	err = scanSegments(fs, dir, names, s)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return Contents{}, err
	}
	return s.contents, s.complete()
}

// ValidSnapshots gives the snapshot records that the log can start from, in log
// order: those not above the last saved commit. The last one is where to start.
// A torn write at the end is taken for the end.
func ValidSnapshots(fs FS, dir string) ([]Snapshot, error) {
	names, err := listSegments(fs, dir)
	if err != nil {
		return nil, err
	}
	if err := checkSequence(names); err != nil {
		return nil, err
	}
	marks := new(marks)
	err = scanSegments(fs, dir, names, marks)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	var valid []Snapshot
	for _, s := range marks.snapshots {
		if s.Index <= marks.commit {
			valid = append(valid, s)
		}
	}
	return valid, nil
}

// visitor takes the records of a log in order; the data is valid only during
// the call.
type visitor interface{ add(record) error }

// scanSegments reads segments without locking them.
func scanSegments(fs FS, dir string, names []segmentName, v visitor) error {
	var crc uint32
	for i, name := range names {
		path := filepath.Join(dir, name.String())
		file, err := fs.OpenFile(path, os.O_RDONLY, 0)
		if err != nil {
			return fmt.Errorf("open segment %s: %w", name, err)
		}
		r, err := newSegmentReader(file, path, crc, i == len(names)-1)
		if err == nil {
			err = r.all(v)
			crc = r.crc
		}
		if closeErr := file.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// all gives every record to v until the clean end.
func (r *segmentReader) all(v visitor) error {
	for {
		rec, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := v.add(rec); err != nil {
			return fmt.Errorf("%w: in file '%s' before position: %d", err, r.path, r.off)
		}
	}
}

// open is one attempt to open for appending.
func open(fs FS, dir string, at Snapshot) (*Log, Contents, error) {
	names, err := listSegments(fs, dir)
	if err != nil {
		return nil, Contents{}, err
	}
	if names, err = segmentsFrom(names, at.Index); err != nil {
		return nil, Contents{}, err
	}
	l := &Log{fs: fs, dir: dir, segmentBytes: segmentBytes, state: newState(0, 0, 0)}
	c, err := l.open(names, at)
	if err != nil {
		return nil, Contents{}, errors.Join(err, l.closeFiles())
	}
	return l, c, nil
}

func (l *Log) open(names []segmentName, at Snapshot) (Contents, error) {
	for _, name := range names {
		file, err := l.fs.OpenFile(filepath.Join(l.dir, name.String()), os.O_RDWR, 0)
		if err != nil {
			return Contents{}, fmt.Errorf("open segment %s: %w", name, err)
		}
		l.held = append(l.held, segment{name, file})
		if err := file.Lock(); err != nil {
			return Contents{}, fmt.Errorf("lock segment %s: %w", name, err)
		}
	}
	s := newScan(at)
	for i, h := range l.held {
		r, err := newSegmentReader(h.file, filepath.Join(l.dir, h.name.String()), l.crc, i == len(l.held)-1)
		if err != nil {
			return Contents{}, err
		}
		if err := r.all(s); err != nil {
			return Contents{}, err
		}
		l.crc, l.offset = r.crc, r.off
	}
	if err := s.complete(); err != nil {
		return Contents{}, err
	}
	l.metadata, l.lastIndex = s.contents.Metadata, s.lastIndex
	if hs := s.contents.HardState; hs != nil {
		l.state = newState(hs.GetTerm(), hs.GetVote(), hs.GetCommit())
	}
	if err := l.rewriteTail(); err != nil {
		return Contents{}, err
	}
	if err := l.clearTail(); err != nil {
		return s.contents, err
	}
	l.noteDurable()
	return s.contents, nil
}

// rewriteBytes is how much of the tail is written again at a time.
const rewriteBytes = 1 << 20

// rewriteTail writes the records of the tail again, as they are. When a sync
// failed, the process stopped; the kernel still shows what was written, but
// counts it as clean and never writes it. A process that reads it must not take
// it for durable, and a sync alone would not make it so.
func (l *Log) rewriteTail() error {
	buf := make([]byte, min(rewriteBytes, l.offset))
	if plant.Here(plant.TailTrusted) {
		return nil
	}
	for at := int64(0); at < l.offset; at += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), l.offset-at)]
		if _, err := l.tail().ReadAt(buf, at); err != nil {
			return fmt.Errorf("read tail: %w", err)
		}
		if _, err := l.tail().WriteAt(buf, at); err != nil {
			return fmt.Errorf("rewrite tail: %w", err)
		}
	}
	return nil
}

// clearTail zeroes what follows the last record: after a crash, sectors of a
// later unsynced write may have survived there, and would be read as records
// once the gap before them is filled.
func (l *Log) clearTail() error {
	size, err := l.tail().Size()
	if err != nil {
		return fmt.Errorf("size of tail: %w", err)
	}
	if plant.Here(plant.TailKept) {
		return l.tail().Sync()
	}
	if err := l.tail().Truncate(l.offset); err != nil {
		return fmt.Errorf("clear tail: %w", err)
	}
	crash.Here("wal/open-tail-cleared")
	if err := l.tail().Preallocate(size); err != nil {
		return fmt.Errorf("preallocate tail: %w", err)
	}
	if err := l.tail().Sync(); err != nil {
		return fmt.Errorf("sync tail: %w", err)
	}
	return nil
}

// repair cuts a torn write off the last segment and keeps what it cuts. That is
// the torn record and what may have survived behind it: the preallocated zeros at
// the end, nearly all of the file, are not copied.
func repair(fs FS, dir string) error {
	names, err := listSegments(fs, dir)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, names[len(names)-1].String())
	file, err := fs.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Lock(); err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	r, err := newSegmentReader(file, path, 0, true)
	if err != nil {
		return err
	}
	switch err := r.all(nothing{}); {
	case err == nil:
		return nil // the tear is not here; the second attempt will say where
	case !errors.Is(err, io.ErrUnexpectedEOF):
		return err
	}
	if r.off == 0 {
		return r.damaged("nothing before the torn record, though the head of a segment is synced before it gets its name")
	}
	if err := copyTorn(fs, fmt.Sprintf("%s.%x.broken", path, r.off), r); err != nil {
		return fmt.Errorf("copy the torn end of %s: %w", path, err)
	}
	crash.Here("wal/repair-before-truncate")
	if err := file.Truncate(r.off); err != nil {
		return fmt.Errorf("truncate %s: %w", path, err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	crash.Here("wal/repair-after-truncate")
	return nil
}

// copyTorn makes a durable copy of what lies behind the reader's position, without
// the zeros at its end.
func copyTorn(fs FS, path string, r *segmentReader) error {
	end, err := r.lastData()
	if err != nil {
		return err
	}
	to, err := fs.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer to.Close()
	if _, err := io.Copy(io.NewOffsetWriter(to, 0), io.NewSectionReader(r.file, r.off, end-r.off)); err != nil {
		return err
	}
	if err := to.Sync(); err != nil {
		return err
	}
	return fs.SyncDir(filepath.Dir(path))
}

// lastData is the end of the last byte behind the reader's position that is not
// zero, that position if there is none.
func (r *segmentReader) lastData() (int64, error) {
	end := r.off
	for at := r.off; at < r.size; {
		b, err := r.bytes(at, int(min(windowBytes, r.size-at)))
		if err != nil {
			return 0, err
		}
		if n := len(bytes.TrimRight(b, "\x00")); n > 0 {
			end = at + int64(n)
		}
		at += int64(len(b))
	}
	return end, nil
}

// nothing is the visitor that only checks.
type nothing struct{}

func (nothing) add(record) error { return nil }
