package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// verifyPaceBytes lie between two calls of Verify's pace.
const verifyPaceBytes = 1 << 20

// Verify reads what is durable of the log again and checks every record. pace is
// told of the bytes read since its last call and may wait. Any goroutine may call
// it while the log is written; the error of a damaged record names its file and
// position.
func (l *Log) Verify(pace func(bytes int64)) error {
	names, err := listSegments(l.fs, l.dir)
	if err != nil {
		return fmt.Errorf("verify log: %w", err)
	}
	for _, name := range names {
		limit := int64(-1)
		if seq, offset := l.durableTail(); name.seq == seq {
			limit = offset
		} else if name.seq > seq {
			break // begun meanwhile
		}
		err := verifySegment(l.fs, filepath.Join(l.dir, name.String()), limit, pace)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // purged meanwhile
			return fmt.Errorf("verify log: %w", err)
		}
	}
	return nil
}

// verifySegment checks the first limit bytes of a segment, all if that is
// negative.
func verifySegment(fs FS, path string, limit int64, pace func(int64)) error {
	file, err := fs.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	const noTail = false // nothing here may be torn
	r, err := newSegmentReader(file, path, 0, noTail)
	if err != nil {
		return err
	}
	if limit >= 0 {
		r.size = min(r.size, limit)
	}
	p := pacer{reader: r, pace: pace}
	if err := r.all(&p); err != nil {
		return err
	}
	pace(r.off - p.told)
	if limit >= 0 && r.off < limit {
		return r.damaged(fmt.Sprintf("the log ends here, but %d bytes more were durable", limit-r.off))
	}
	return nil
}

// pacer is the visitor that only counts.
type pacer struct {
	reader *segmentReader
	told   int64
	pace   func(int64)
}

func (p *pacer) add(record) error {
	if n := p.reader.off - p.told; n >= verifyPaceBytes {
		p.told = p.reader.off
		p.pace(n)
	}
	return nil
}

// noteDurable says up to where the tail is durable. A reader that sees the
// sequence number of one tail never sees the offset of another: see durableTail.
func (l *Log) noteDurable() {
	seq := l.held[len(l.held)-1].name.seq
	if l.durableSeq.Load() != seq {
		l.durableOffset.Store(0)
		l.durableSeq.Store(seq)
	}
	l.durableOffset.Store(l.offset)
}

func (l *Log) durableTail() (seq uint64, offset int64) {
	for {
		seq, offset = l.durableSeq.Load(), l.durableOffset.Load()
		if l.durableSeq.Load() == seq {
			return seq, offset
		}
	}
}
