package cluster

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// logSegments are the segments of a member's log, in order.
func logSegments(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no segments in %s: %v", dir, err)
	}
	slices.Sort(names)
	return names
}

// recordsOf gives the offset of each record of a segment and of their end. The
// frame: 8 bytes little endian, the low 56 bits are the length, the low 3 bits of
// the top byte the padding.
func recordsOf(t *testing.T, segment string) (offsets []int64, end int64) {
	t.Helper()
	data, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	at := uint64(0)
	for at+8 <= uint64(len(data)) {
		frame := binary.LittleEndian.Uint64(data[at:])
		length := frame & (1<<56 - 1)
		if length == 0 || length > uint64(len(data)) {
			break
		}
		offsets = append(offsets, int64(at))
		at += 8 + length
		if frame>>63 == 1 {
			at += frame >> 56 & 7
		}
	}
	return offsets, int64(at)
}

// tearLog writes the beginning of a record at the end of a log, as a power
// failure in the middle of a write leaves it.
func tearLog(t *testing.T, dir string, r *rand.Rand) {
	t.Helper()
	segments := logSegments(t, dir)
	last := segments[len(segments)-1]
	_, end := recordsOf(t, last)
	torn := binary.LittleEndian.AppendUint64(nil, 4096)
	for range 1 + r.IntN(600) {
		torn = append(torn, byte(1+r.IntN(255)))
	}
	if err := writeAt(last, end, torn); err != nil {
		t.Fatal(err)
	}
}

func writeAt(path string, at int64, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, at)
	return errors.Join(err, f.Close())
}
