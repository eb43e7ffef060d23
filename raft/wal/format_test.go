package wal_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/raft/wal"
	"github.com/kvorum/kvorum/raft/wal/memfs"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

var rewrite = flag.Bool("rewrite", false, "rewrite testdata/golden.wal")

// The bytes below were computed from the format page by a program of a few
// lines in another language, with its own bitwise CRC-32C.
const (
	goldenFirst = `
		04 00 00 00 00 00 00 84
		08 04 10 00 00 00 00 00
		0e 00 00 00 00 00 00 82
		08 01 10 a9 f6 f0 ac 0c 1a 04 08 01 10 02 00 00
		0e 00 00 00 00 00 00 82
		08 05 10 99 cf ff fd 0d 1a 04 08 00 10 00 00 00
		15 00 00 00 00 00 00 83
		08 02 10 f2 ba d1 86 02 1a 0b 10 01 18 01 22 05 68 65 6c 6c 6f 00 00 00
		14 00 00 00 00 00 00 84
		08 02 10 d6 ec 8e 8d 03 1a 0a 08 01 10 01 18 02 22 02 63 63 00 00 00 00
		10 00 00 00 00 00 00 00
		08 03 10 f6 c9 b4 dc 0b 1a 06 08 01 10 00 18 02
		14 00 00 00 00 00 00 84
		08 05 10 86 e6 c7 f2 05 1a 0a 08 02 10 01 1a 04 08 01 10 02 00 00 00 00`
	goldenSecond = `
		08 00 00 00 00 00 00 00
		08 04 10 86 e6 c7 f2 05
		0e 00 00 00 00 00 00 82
		08 01 10 aa a4 f9 c3 01 1a 04 08 01 10 02 00 00
		10 00 00 00 00 00 00 00
		08 03 10 b4 94 a5 e4 0b 1a 06 08 01 10 00 18 02`
)

// goldenMetadata is node 1 of cluster 2.
var goldenMetadata = []byte{0x08, 1, 0x10, 2}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newEntry(term, index uint64, kind raftpb.EntryType, data []byte) *raftpb.Entry {
	e := &raftpb.Entry{Term: &term, Index: &index, Data: data}
	if kind != raftpb.EntryNormal {
		e.Type = &kind
	}
	return e
}

func newState(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit}
}

func goldenEntries() []*raftpb.Entry {
	return []*raftpb.Entry{
		newEntry(1, 1, raftpb.EntryNormal, []byte("hello")),
		newEntry(1, 2, raftpb.EntryConfChange, []byte("cc")),
	}
}

func goldenSnapshot() wal.Snapshot {
	return wal.Snapshot{Index: 2, Term: 1, ConfState: &raftpb.ConfState{Voters: []uint64{1}, Learners: []uint64{2}}}
}

// writeGolden makes a log of two segments in dir.
func writeGolden(t testing.TB, fs wal.FS, dir string) {
	t.Helper()
	l, err := wal.Create(fs, dir, goldenMetadata)
	check(t, err)
	l.SetSegmentSize(184)
	check(t, l.Append(newState(1, 0, 2), goldenEntries()))
	check(t, l.AppendSnapshot(goldenSnapshot()))
	check(t, l.Sync())
	check(t, l.Close())
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, fs wal.FS, path string) []byte {
	t.Helper()
	f, err := fs.OpenFile(path, os.O_RDONLY, 0)
	check(t, err)
	defer f.Close()
	size, err := f.Size()
	check(t, err)
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		t.Fatalf("read %s: %v", path, err)
	}
	return b
}

func writeFile(t testing.TB, fs wal.FS, path string, b []byte) {
	t.Helper()
	f, err := fs.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	check(t, err)
	_, err = f.WriteAt(b, 0)
	check(t, err)
	check(t, f.Close())
}

// If this fails, etcd cannot read our log or we cannot read etcd's: swapping
// the two on a data directory loses the member.
func TestGoldenBytes(t *testing.T) {
	fs := memfs.New()
	writeGolden(t, fs, "wal")
	first := readFile(t, fs, "wal/0000000000000000-0000000000000000.wal")
	want := unhex(t, goldenFirst)
	if !bytes.Equal(first, want) {
		t.Errorf("first segment\n%s want\n%s", hex.Dump(first[:min(len(first), 512)]), hex.Dump(want))
	}
	second := readFile(t, fs, "wal/0000000000000001-0000000000000003.wal")
	want = unhex(t, goldenSecond)
	if !bytes.Equal(second[:len(want)], want) || len(bytes.Trim(second[len(want):], "\x00")) != 0 {
		t.Errorf("second segment\n%s want\n%s", hex.Dump(second[:len(want)]), hex.Dump(want))
	}
	if *rewrite {
		check(t, os.WriteFile("testdata/golden.wal", first, 0o644))
	}
}

// If this fails, a newer build cannot read the log that an older one wrote.
func TestGoldenFile(t *testing.T) {
	golden, err := os.ReadFile("testdata/golden.wal")
	check(t, err)
	dir := filepath.Join(t.TempDir(), "wal")
	check(t, os.Mkdir(dir, 0o700))
	check(t, os.WriteFile(filepath.Join(dir, "0000000000000000-0000000000000000.wal"), golden, 0o600))
	snaps, err := wal.ValidSnapshots(wal.OS(), dir)
	check(t, err)
	if len(snaps) != 2 || !proto.Equal(snaps[1].ConfState, goldenSnapshot().ConfState) || snaps[1].Index != 2 || snaps[1].Term != 1 {
		t.Errorf("snapshots %v", snaps)
	}
	c, err := wal.Read(wal.OS(), dir, wal.Snapshot{})
	check(t, err)
	sameContents(t, c, goldenMetadata, newState(1, 0, 2), goldenEntries())
}

func sameContents(t testing.TB, c wal.Contents, metadata []byte, hs *raftpb.HardState, entries []*raftpb.Entry) {
	t.Helper()
	if !bytes.Equal(c.Metadata, metadata) {
		t.Errorf("metadata %x, want %x", c.Metadata, metadata)
	}
	if !proto.Equal(c.HardState, hs) {
		t.Errorf("hard state %v, want %v", c.HardState, hs)
	}
	if !sameEntries(c.Entries, entries) {
		t.Errorf("entries %v, want %v", c.Entries, entries)
	}
}

func sameEntries(a, b []*raftpb.Entry) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].GetTerm() != b[i].GetTerm() || a[i].GetIndex() != b[i].GetIndex() ||
			a[i].GetType() != b[i].GetType() || !bytes.Equal(a[i].GetData(), b[i].GetData()) {
			return false
		}
	}
	return true
}
