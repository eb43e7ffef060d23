package wal

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// bytesFile is a read-only file in memory.
type bytesFile struct {
	File
	*bytes.Reader
}

func (f bytesFile) ReadAt(p []byte, off int64) (int, error) { return f.Reader.ReadAt(p, off) }
func (f bytesFile) Size() (int64, error)                    { return f.Reader.Size(), nil }

// readAll reads a segment to its end and returns the number of records.
func readAll(b []byte, last bool, v visitor) (off int64, err error) {
	r, err := newSegmentReader(bytesFile{Reader: bytes.NewReader(b)}, "segment", 0, last)
	if err != nil {
		return 0, err
	}
	err = r.all(v)
	return r.off, err
}

func randomEntry(rnd *rand.Rand) *raftpb.Entry {
	term, index := 1+rnd.Uint64()>>rnd.IntN(64), 1+rnd.Uint64()>>rnd.IntN(64)
	e := &raftpb.Entry{Term: &term, Index: &index}
	if rnd.IntN(4) > 0 {
		e.Data = make([]byte, rnd.IntN(300))
		for i := range e.Data {
			e.Data[i] = byte(rnd.Uint32())
		}
	}
	if rnd.IntN(3) == 0 && len(e.Data) > 0 {
		e.Type = raftpb.EntryConfChange.Enum()
	}
	return e
}

// If this fails, our hand-written encoding and protobuf's disagree on what an
// entry says.
func TestEntryEncodingIsProtobuf(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("KVORUM_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("replay: KVORUM_SEED=%d go test ./raft/wal -run '^%s$'", seed, t.Name())
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		e := randomEntry(rnd)
		if e.GetTerm() == 0 || e.GetIndex() == 0 {
			continue
		}
		want, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		got := append(appendEntryHead(nil, e), e.Data...)
		if !bytes.Equal(got, want) {
			t.Fatalf("%v is %x, want %x", e, got, want)
		}
		// Explicit zero types, as 3.5 and 3.6 write them, mean the same.
		explicit := proto.CloneOf(e)
		explicit.Type = e.GetType().Enum()
		old, err := proto.Marshal(explicit)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range [][]byte{want, old} {
			view, err := parseEntry(b)
			if err != nil {
				t.Fatalf("%v: %v", e, err)
			}
			if back := view.entry(); !proto.Equal(back, e) {
				t.Fatalf("%v came back as %v", e, back)
			}
		}
	}
}

// If this fails, our hard states and snapshot marks are not what etcd reads.
func TestStateAndSnapshotEncoding(t *testing.T) {
	for _, hs := range []*raftpb.HardState{newState(0, 0, 0), newState(1, 0, 0), newState(7, 1<<63, 1<<40)} {
		want, err := proto.Marshal(hs)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendState(nil, hs); !bytes.Equal(got, want) {
			t.Errorf("%v is %x, want %x", hs, got, want)
		}
		back, err := decodeState(want)
		if err != nil || !proto.Equal(back, hs) {
			t.Errorf("%v came back as %v, %v", hs, back, err)
		}
	}
	back, err := decodeState([]byte{0x08, 3}) // absent fields
	if err != nil || !proto.Equal(back, newState(3, 0, 0)) {
		t.Errorf("absent fields: %v, %v", back, err)
	}
	conf := &raftpb.ConfState{Voters: []uint64{1, 2}, Learners: []uint64{3}, AutoLeave: proto.Bool(false)}
	for _, s := range []Snapshot{{}, {Index: 300, Term: 2, ConfState: conf}} {
		b, err := appendSnapshot(nil, s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeSnapshot(b)
		if err != nil || got.Index != s.Index || got.Term != s.Term || !proto.Equal(got.ConfState, s.ConfState) {
			t.Errorf("%v came back as %v, %v", s, got, err)
		}
	}
}

// seedSegment is a small whole segment.
func seedSegment() []byte {
	var crc uint32
	b := appendRecord(nil, kindCRC, 0, nil, nil)
	b, crc = appendPlain(b, crc, kindMetadata, []byte{8, 1, 0x10, 2})
	b, crc = appendPlain(b, crc, kindSnapshot, []byte{8, 0, 0x10, 0})
	one := uint64(1)
	e := &raftpb.Entry{Term: &one, Index: &one, Data: []byte("hello")}
	b, crc = appendEntryRecord(b, crc, appendEntryHead(nil, e), e)
	b, _ = appendPlain(b, crc, kindState, appendState(nil, newState(1, 1, 1)))
	return append(b, make([]byte, 64)...)
}

func FuzzSegment(f *testing.F) {
	f.Add(seedSegment(), true)
	f.Add(seedSegment()[:150], true)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x80, 1, 2, 3}, false)
	f.Fuzz(func(t *testing.T, b []byte, last bool) {
		s := newScan(Snapshot{})
		off, err := readAll(b, last, s)
		if off > int64(len(b)) || off%8 != 0 {
			t.Fatalf("good until %d of %d", off, len(b))
		}
		if err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
			// What was read so far must read the same when the rest is cut off.
			if _, err := readAll(b[:off], last, nothing{}); err != nil {
				t.Fatalf("after repair: %v", err)
			}
		}
		_, _ = readAll(b, last, new(marks))
	})
}

func FuzzRecord(f *testing.F) {
	f.Add(seedSegment()[8:16])
	f.Add([]byte{0x1a, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, head, ok := innerLength(b)
		if ok && (head > len(b) || n < int64(head)) {
			t.Fatalf("length %d, header %d of %d bytes", n, head, len(b))
		}
		rec, err := decodeRecord(b)
		if err != nil || rec.kind == kindCRC {
			return
		}
		framed := appendRecord(nil, rec.kind, rec.crc, rec.data, nil)
		size, pad, ok := splitLength(uint64(framed[0]) | uint64(framed[1])<<8 | uint64(framed[2])<<16 | uint64(framed[3])<<24 | uint64(framed[7])<<56)
		if !ok || int(size+pad) != len(framed)-frameBytes {
			t.Fatalf("framed as %x", framed)
		}
		again, err := decodeRecord(framed[frameBytes : frameBytes+size])
		if err != nil || again.kind != rec.kind || again.crc != rec.crc || !bytes.Equal(again.data, rec.data) {
			t.Fatalf("%v became %v, %v", rec, again, err)
		}
	})
}

func FuzzEntry(f *testing.F) {
	f.Add([]byte{0x10, 1, 0x18, 1, 0x22, 5, 'h', 'e', 'l', 'l', 'o'})
	f.Add([]byte{0x22, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		view, err := parseEntry(b)
		if err != nil {
			return
		}
		got := view.entry()
		var want raftpb.Entry
		if err := proto.Unmarshal(b, &want); err != nil {
			t.Fatalf("protobuf refuses what was accepted as %v: %v", got, err)
		}
		if got.GetTerm() != want.GetTerm() || got.GetIndex() != want.GetIndex() ||
			got.GetType() != want.GetType() || !bytes.Equal(got.Data, want.Data) {
			t.Fatalf("read %v, protobuf reads %v", got, &want)
		}
		encoded := append(appendEntryHead(nil, got), got.Data...)
		if again, err := parseEntry(encoded); err != nil || !proto.Equal(again.entry(), got) {
			t.Fatalf("%v became %v, %v", got, again, err)
		}
	})
}

func FuzzStateAndSnapshot(f *testing.F) {
	f.Add([]byte{8, 1, 0x10, 2, 0x18, 3})
	f.Add([]byte{8, 2, 0x10, 1, 0x1a, 2, 8, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if hs, err := decodeState(b); err == nil {
			if again, err := decodeState(appendState(nil, hs)); err != nil || !proto.Equal(again, hs) {
				t.Fatalf("%v became %v, %v", hs, again, err)
			}
		}
		if s, err := decodeSnapshot(b); err == nil {
			encoded, err := appendSnapshot(nil, s)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := decodeSnapshot(encoded); err != nil || again.Index != s.Index || !proto.Equal(again.ConfState, s.ConfState) {
				t.Fatalf("%v became %v, %v", s, again, err)
			}
		}
	})
}
