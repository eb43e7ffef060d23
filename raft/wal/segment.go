package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
)

const (
	// segmentBytes is where a segment is cut; it may grow past it by one batch.
	segmentBytes = 64_000_000
	// sectorBytes is what a disk writes whole or not at all.
	sectorBytes = 512
	// windowBytes is how much of a segment is read at a time.
	windowBytes = 1 << 20
)

// segmentName is the identity of a segment: its place in the log and the index
// of the first entry expected in it.
type segmentName struct {
	seq   uint64
	index uint64
}

func (n segmentName) String() string { return fmt.Sprintf("%016x-%016x.wal", n.seq, n.index) }

// parsePair reads "%016x-%016x" followed by suffix.
func parsePair(name, suffix string) (a, b uint64, ok bool) {
	base, found := strings.CutSuffix(name, suffix)
	if !found || len(base) != 33 || base[16] != '-' {
		return 0, 0, false
	}
	a, aok := parseHex16(base[:16])
	b, bok := parseHex16(base[17:])
	return a, b, aok && bok
}

// parseHex16 reads 16 lower-case hex digits.
func parseHex16(s string) (v uint64, ok bool) {
	if len(s) != 16 {
		return 0, false
	}
	for _, c := range []byte(s) {
		switch {
		case '0' <= c && c <= '9':
			v = v<<4 | uint64(c-'0')
		case 'a' <= c && c <= 'f':
			v = v<<4 | uint64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return v, true
}

// listSegments gives the segments of dir in log order. Other names are ignored.
// A dir without any is [ErrFileNotFound].
func listSegments(fs FS, dir string) ([]segmentName, error) {
	names, err := fs.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list log directory: %w", err)
	}
	var segments []segmentName
	for _, name := range names {
		if seq, index, ok := parsePair(name, ".wal"); ok {
			segments = append(segments, segmentName{seq, index})
		}
	}
	if len(segments) == 0 {
		return nil, ErrFileNotFound
	}
	slices.SortFunc(segments, func(a, b segmentName) int { return strings.Compare(a.String(), b.String()) })
	return segments, nil
}

// segmentsFrom keeps the segments needed to read everything after a snapshot.
func segmentsFrom(segments []segmentName, index uint64) ([]segmentName, error) {
	from := -1
	for i, s := range segments {
		if s.index <= index {
			from = i
		}
	}
	if from < 0 {
		return nil, fmt.Errorf("%w which matches the snapshot index '%d'", ErrFileNotFound, index)
	}
	return segments[from:], checkSequence(segments[from:])
}

func checkSequence(segments []segmentName) error {
	for i := 1; i < len(segments); i++ {
		if segments[i].seq != segments[i-1].seq+1 {
			return fmt.Errorf("wal: file sequence numbers (starting from %d) do not increase continuously", segments[0].seq)
		}
	}
	return nil
}

// segmentReader reads the records of one segment and checks their checksums.
// It ends with io.EOF at a clean end, an error that wraps io.ErrUnexpectedEOF
// at a torn write, and any other error at damage. off is then the end of the
// last good record.
type segmentReader struct {
	file File
	path string
	size int64
	// last: the segment is the log's last, where a write may be torn.
	last bool
	crc  uint32
	off  int64

	window   []byte
	windowAt int64
}

func newSegmentReader(file File, path string, crc uint32, last bool) (*segmentReader, error) {
	size, err := file.Size()
	if err != nil {
		return nil, fmt.Errorf("size of %s: %w", path, err)
	}
	return &segmentReader{file: file, path: path, size: size, last: last, crc: crc}, nil
}

// next returns the next record; its data is valid until the following call.
func (r *segmentReader) next() (record, error) {
	left := r.size - r.off
	if left == 0 {
		return record{}, io.EOF
	}
	if left < frameBytes {
		return record{}, fmt.Errorf("%w: %d bytes at the end of %q", io.ErrUnexpectedEOF, left, r.path)
	}
	head, err := r.bytes(r.off, frameBytes)
	if err != nil {
		return record{}, err
	}
	field := binary.LittleEndian.Uint64(head)
	if field == 0 {
		return record{}, io.EOF
	}
	n, pad, ok := splitLength(field)
	if !ok {
		return record{}, r.damaged(fmt.Sprintf("length field %#x", field))
	}
	if n+pad > left-frameBytes {
		return record{}, r.tooLong(n, left-frameBytes)
	}
	body, err := r.bytes(r.off+frameBytes, int(n+pad))
	if err != nil {
		return record{}, err
	}
	rec, err := r.check(body, n)
	if err != nil {
		return record{}, err
	}
	r.off += frameBytes + n + pad
	return rec, nil
}

// check decodes a record and advances the running checksum.
func (r *segmentReader) check(body []byte, n int64) (record, error) {
	rec, err := decodeRecord(body[:n])
	if err != nil {
		if r.torn(body, n) {
			return record{}, fmt.Errorf("%w: torn record in %q at %d", io.ErrUnexpectedEOF, r.path, r.off)
		}
		return record{}, r.damaged(err.Error())
	}
	if rec.kind == kindCRC {
		if r.crc != 0 && r.crc != rec.crc {
			return record{}, r.mismatch(rec.crc, r.crc)
		}
		r.crc = rec.crc
		return rec, nil
	}
	crc := crc32.Update(r.crc, castagnoli(), rec.data)
	if crc != rec.crc {
		if r.torn(body, n) {
			return record{}, fmt.Errorf("%w: torn record in %q at %d", io.ErrUnexpectedEOF, r.path, r.off)
		}
		return record{}, r.mismatch(rec.crc, crc)
	}
	r.crc = crc
	return rec, nil
}

// torn tells a write cut short by a crash from damage: of a torn write some
// sector never reached the disk and is zero. Only the last segment can end in
// one. A length field that contradicts the record behind it is damage, however
// many zeros it then spans: else one flipped bit in it would silently drop the
// rest of the log.
func (r *segmentReader) torn(body []byte, n int64) bool {
	if !r.last {
		return false
	}
	inner, head, ok := innerLength(body)
	if ok && inner != n && !r.zeroSector(body[:head]) {
		return false
	}
	return r.zeroSector(body)
}

// zeroSector reports whether one of the sectors that hold b, which begins after
// the current length field, is all zero in b.
func (r *segmentReader) zeroSector(b []byte) bool {
	at := r.off + frameBytes
	for len(b) > 0 {
		n := min(int64(len(b)), sectorBytes-at%sectorBytes)
		if !slices.ContainsFunc(b[:n], func(c byte) bool { return c != 0 }) {
			return true
		}
		b = b[n:]
		at += n
	}
	return false
}

// tooLong is the end of a log whose file ends inside a record: a write that
// was to extend the file was torn, unless the record itself tells another
// length.
func (r *segmentReader) tooLong(n, left int64) error {
	head, err := r.bytes(r.off+frameBytes, int(min(left, 32)))
	if err != nil {
		return err
	}
	if inner, used, ok := innerLength(head); ok && inner != n && !r.zeroSector(head[:used]) {
		return r.damaged(fmt.Sprintf("length field says %d, record says %d", n, inner))
	}
	return fmt.Errorf("%w: [wal] max entry size limit exceeded when reading %q, recBytes: %d, left in file: %d",
		io.ErrUnexpectedEOF, r.path, n, left)
}

func (r *segmentReader) mismatch(want, got uint32) error {
	return fmt.Errorf("%w: expected: %x computed: %x: in file '%s' at position: %d", ErrCRCMismatch, want, got, r.path, r.off)
}

func (r *segmentReader) damaged(what string) error {
	return fmt.Errorf("%w: %s: in file '%s' at position: %d", ErrCRCMismatch, what, r.path, r.off)
}

// bytes returns n bytes of the file at off, which lie within it.
func (r *segmentReader) bytes(off int64, n int) ([]byte, error) {
	if off < r.windowAt || off+int64(n) > r.windowAt+int64(len(r.window)) {
		want := int(min(int64(max(n, windowBytes)), r.size-off))
		if cap(r.window) < want {
			r.window = make([]byte, want)
		}
		r.window, r.windowAt = r.window[:want], off
		if got, err := r.file.ReadAt(r.window, off); got < want {
			r.window = r.window[:0]
			return nil, fmt.Errorf("read %s at %d: %w", r.path, off, noEOF(err))
		}
	}
	at := off - r.windowAt
	return r.window[at : at+int64(n)], nil
}

// noEOF keeps a file that shrinks while it is read from looking like a torn
// write.
func noEOF(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("file is shorter than its size")
	}
	return err
}
