package wal_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/raft/wal"
	"github.com/kvorum/kvorum/raft/wal/memfs"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

const firstSegment = "0000000000000000-0000000000000000.wal"

// fill makes a log of one segment in dir with entries 1 to n of 100 bytes, one
// Append and Sync each, and returns the offsets after each of them.
func fill(t testing.TB, fs wal.FS, dir string, n int) (ends []int) {
	t.Helper()
	l, err := wal.Create(fs, dir, goldenMetadata)
	check(t, err)
	const head = 64 // of the first segment
	for i := range n {
		data := bytes.Repeat([]byte{byte(i + 1)}, 100)
		check(t, l.Append(nil, []*raftpb.Entry{newEntry(1, uint64(i+1), raftpb.EntryNormal, data)}))
		check(t, l.Sync())
		ends = append(ends, head+int(l.Stats().BytesWritten))
	}
	check(t, l.Close())
	return ends
}

// patch overwrites bytes of a file.
func patch(t testing.TB, fs wal.FS, path string, off int, b []byte) {
	t.Helper()
	f, err := fs.OpenFile(path, os.O_RDWR, 0)
	check(t, err)
	_, err = f.WriteAt(b, int64(off))
	check(t, err)
	check(t, f.Sync())
	check(t, f.Close())
}

func shorten(t testing.TB, fs wal.FS, path string, size int) {
	t.Helper()
	f, err := fs.OpenFile(path, os.O_RDWR, 0)
	check(t, err)
	check(t, f.Truncate(int64(size)))
	check(t, f.Close())
}

// If this fails, a member does not start after a power failure, or the evidence
// of what was cut off is lost.
func TestTornTailIsRepaired(t *testing.T) {
	zeros := make([]byte, 512)
	for name, tear := range map[string]func(t *testing.T, fs wal.FS, path string, ends []int){
		"file ends in a record": func(t *testing.T, fs wal.FS, path string, ends []int) {
			shorten(t, fs, path, ends[9]-20)
		},
		"file ends in a length": func(t *testing.T, fs wal.FS, path string, ends []int) {
			shorten(t, fs, path, ends[8]+3)
		},
		"sector of the last record lost": func(t *testing.T, fs wal.FS, path string, ends []int) {
			at := ends[8] + 8
			patch(t, fs, path, at, zeros[:ends[9]-at])
		},
		"length alone survived": func(t *testing.T, fs wal.FS, path string, ends []int) {
			shorten(t, fs, path, ends[8]+8)
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs := memfs.New()
			ends := fill(t, fs, "wal", 10)
			path := filepath.Join("wal", firstSegment)
			tear(t, fs, path, ends)
			damaged := readFile(t, fs, path)
			if c, err := wal.Read(fs, "wal", wal.Snapshot{}); err != nil || len(c.Entries) != 9 {
				t.Fatalf("read-only: %d entries, %v", len(c.Entries), err)
			}
			l, c, err := wal.Open(fs, "wal", wal.Snapshot{})
			check(t, err)
			if len(c.Entries) != 9 || !c.Repaired {
				t.Fatalf("%d entries, repaired %v", len(c.Entries), c.Repaired)
			}
			end := ends[8] // of the last whole record
			kept := readFile(t, fs, fmt.Sprintf("%s.%x.broken", path, end))
			if want := bytes.TrimRight(damaged[end:], "\x00"); !bytes.Equal(kept, want) {
				t.Errorf("%d bytes were kept of %d that were cut off", len(kept), len(want))
			}
			e := newEntry(2, 10, raftpb.EntryNormal, []byte("after"))
			check(t, l.Append(nil, []*raftpb.Entry{e}))
			check(t, l.Close())
			c, err = wal.Read(fs, "wal", wal.Snapshot{})
			check(t, err)
			if len(c.Entries) != 10 || string(c.Entries[9].Data) != "after" {
				t.Fatalf("after repair: %v", c.Entries)
			}
		})
	}
}

// If this fails, a flipped bit silently drops acknowledged writes, or brings
// back altered ones.
func TestDamageIsRefused(t *testing.T) {
	path := filepath.Join("wal", firstSegment)
	pristine := memfs.New()
	l, err := wal.Create(pristine, "wal", goldenMetadata)
	check(t, err)
	check(t, l.Append(newState(1, 77, 0), goldenEntries()))
	check(t, l.AppendSnapshot(goldenSnapshot()))
	check(t, l.Append(newState(2, 78, 2), []*raftpb.Entry{newEntry(2, 3, raftpb.EntryNormal, nil)}))
	check(t, l.Append(nil, []*raftpb.Entry{newEntry(2, 4, raftpb.EntryNormal, bytes.Repeat([]byte{7}, 1000))}))
	used := 64 + int(l.Stats().BytesWritten)
	check(t, l.Close())
	want, err := wal.Read(pristine, "wal", wal.Snapshot{})
	check(t, err)
	wantSnaps, err := wal.ValidSnapshots(pristine, "wal")
	check(t, err)
	image := readFile(t, pristine, path)[:used+4096]
	for bit := range 8 * used {
		fs := memfs.New()
		check(t, fs.MkdirAll("wal"))
		broken := slices.Clone(image)
		broken[bit/8] ^= 1 << (bit % 8)
		writeFile(t, fs, path, broken)
		where := fmt.Sprintf("bit %d of byte %d", bit%8, bit/8)
		snaps, err := wal.ValidSnapshots(fs, "wal")
		if err == nil && !slices.EqualFunc(snaps, wantSnaps, func(a, b wal.Snapshot) bool { return a.Index == b.Index && a.Term == b.Term }) {
			t.Errorf("%s: snapshots %v", where, snaps)
		}
		l, c, err := wal.Open(fs, "wal", wal.Snapshot{})
		if err != nil {
			if !bytes.Equal(readFile(t, fs, path), broken) {
				t.Errorf("%s: a refused log was changed", where)
			}
			continue
		}
		check(t, l.Close())
		if c.Repaired {
			t.Errorf("%s: taken for a torn write", where)
		}
		if !bytes.Equal(c.Metadata, want.Metadata) || !proto.Equal(c.HardState, want.HardState) || !sameEntries(c.Entries, want.Entries) {
			t.Errorf("%s: not noticed", where)
		}
	}
}

// If this fails, damage in an old segment is taken for a torn write.
func TestDamageInEarlierSegmentIsRefused(t *testing.T) {
	fs := memfs.New()
	writeGolden(t, fs, "wal")
	first := filepath.Join("wal", firstSegment)
	for _, cut := range []int{180, 150} {
		shorten(t, fs, first, cut)
		_, _, err := wal.Open(fs, "wal", wal.Snapshot{})
		if err == nil || !strings.HasPrefix(err.Error(), "failed to read WAL, cannot be repaired: ") {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	patch(t, fs, first, 100, make([]byte, 50))
	if _, _, err := wal.Open(fs, "wal", wal.Snapshot{}); !errors.Is(err, wal.ErrCRCMismatch) {
		t.Errorf("zeros in the first segment: %v", err)
	}
	if _, err := wal.ValidSnapshots(fs, "wal"); !errors.Is(err, wal.ErrCRCMismatch) {
		t.Errorf("scan: %v", err)
	}
}

// If this fails, operators do not find the known remedy for a log that does not
// open.
func TestOpenErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(t *testing.T, fs wal.FS)
		at   wal.Snapshot
		want string
	}{
		{"empty directory", func(t *testing.T, fs wal.FS) { check(t, fs.MkdirAll("wal")) }, wal.Snapshot{}, "wal: file not found"},
		{"only late segments", func(t *testing.T, fs wal.FS) {
			writeGolden(t, fs, "wal")
			check(t, fs.Remove(filepath.Join("wal", firstSegment)))
		}, wal.Snapshot{Index: 2, Term: 1}, "wal: file not found which matches the snapshot index '2'"},
		{"gap", func(t *testing.T, fs wal.FS) {
			writeGolden(t, fs, "wal")
			check(t, fs.Rename("wal/0000000000000001-0000000000000003.wal", "wal/0000000000000002-0000000000000003.wal"))
		}, wal.Snapshot{}, "wal: file sequence numbers (starting from 0) do not increase continuously"},
		{"other metadata", func(t *testing.T, fs wal.FS) {
			writeGolden(t, fs, "wal")
			check(t, fs.MkdirAll("other"))
			l, err := wal.Create(fs, "other/wal", []byte{8, 9, 0x10, 9})
			check(t, err)
			check(t, l.Close())
			check(t, fs.Rename(filepath.Join("other/wal", firstSegment), "wal/0000000000000001-0000000000000003.wal"))
			// The checksum chain is checked first, so that only a chain made on
			// purpose gets as far as the metadata.
		}, wal.Snapshot{}, "walpb: crc mismatch: "},
		{"snapshot of another term", func(t *testing.T, fs wal.FS) { writeGolden(t, fs, "wal") }, wal.Snapshot{Index: 2, Term: 7}, "wal: snapshot mismatch"},
		{"unknown snapshot", func(t *testing.T, fs wal.FS) { writeGolden(t, fs, "wal") }, wal.Snapshot{Index: 1, Term: 1}, "wal: snapshot not found"},
		{"entries missing", func(t *testing.T, fs wal.FS) {
			l, err := wal.Create(fs, "wal", goldenMetadata)
			check(t, err)
			check(t, l.Append(nil, []*raftpb.Entry{newEntry(3, 5, raftpb.EntryNormal, nil)}))
			check(t, l.Close())
		}, wal.Snapshot{}, "wal: slice bounds out of range, snapshot[Index: 0, Term: 0], current entry[Index: 5, Term: 3], len(ents): 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := memfs.New()
			c.make(t, fs)
			_, _, err := wal.Open(fs, "wal", c.at)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("open: %v, want %s", err, c.want)
			}
			// Nothing stays locked, and reading says the same.
			if _, err := wal.Read(fs, "wal", c.at); err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("read: %v, want %s", err, c.want)
			}
		})
	}
}

// If this fails, two processes write one log.
func TestLockedLog(t *testing.T) {
	for name, fs := range map[string]wal.FS{"os": wal.OS(), "memory": memfs.New()} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "wal")
			check(t, fs.MkdirAll(filepath.Dir(dir)))
			l, err := wal.Create(fs, dir, goldenMetadata)
			check(t, err)
			_, _, err = wal.Open(fs, dir, wal.Snapshot{})
			if !errors.Is(err, wal.ErrLocked) || !strings.Contains(err.Error(), "fileutil: file already locked") {
				t.Errorf("second open: %v", err)
			}
			if _, err = wal.Create(fs, dir, goldenMetadata); !errors.Is(err, os.ErrExist) {
				t.Errorf("second create: %v", err)
			}
			check(t, l.Close())
			if err := l.Append(nil, goldenEntries()); !errors.Is(err, wal.ErrClosed) {
				t.Errorf("append after close: %v", err)
			}
			l, _, err = wal.Open(fs, dir, wal.Snapshot{})
			check(t, err)
			check(t, l.Close())
		})
	}
}

// If this fails, purging deletes what a restart needs, or never frees the disk.
func TestPurgeStopsAtLock(t *testing.T) {
	for name, fs := range map[string]wal.FS{"os": wal.OS(), "memory": memfs.New()} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "wal")
			check(t, fs.MkdirAll(filepath.Dir(dir)))
			l, err := wal.Create(fs, dir, goldenMetadata)
			check(t, err)
			l.SetSegmentSize(1024)
			for i := range uint64(12) { // segment k begins at entry 2k+1
				check(t, l.Append(newState(1, 1, i), []*raftpb.Entry{newEntry(1, i+1, raftpb.EntryNormal, make([]byte, 600))}))
				check(t, l.Sync())
			}
			purged := func(keep, want int) {
				t.Helper()
				names, err := wal.Purge(fs, dir, keep)
				check(t, err)
				if len(names) != want {
					t.Errorf("purge to %d deleted %v, want %d", keep, names, want)
				}
			}
			purged(2, 0) // all held
			check(t, l.Release(6))
			purged(0, 0) // 0 keeps all
			purged(6, 1) // 7 segments, of which 0 and 1 are released
			purged(2, 1) // segment 2 begins at 5 and is held
			check(t, l.Append(nil, []*raftpb.Entry{newEntry(1, 13, raftpb.EntryNormal, nil)}))
			check(t, l.Close())
			purged(5, 0)
			purged(1, 4)
		})
	}
}

// If this fails, a log of etcd 3.5 or 3.6 does not open.
func TestExplicitZeros(t *testing.T) {
	fs := memfs.New()
	l, err := wal.Create(fs, "wal", goldenMetadata)
	check(t, err)
	normal := raftpb.EntryNormal
	e := newEntry(1, 1, normal, []byte("x"))
	e.Type = &normal
	check(t, l.Append(newState(1, 0, 0), []*raftpb.Entry{e}))
	check(t, l.Close())
	path := filepath.Join("wal", firstSegment)
	written := readFile(t, fs, path)
	if bytes.Contains(written, []byte{0x08, 0x00, 0x10, 0x01, 0x18, 0x01}) {
		t.Error("the type of a normal entry is written; etcd 3.7 leaves it out")
	}
	c, err := wal.Read(fs, "wal", wal.Snapshot{})
	check(t, err)
	sameContents(t, c, goldenMetadata, newState(1, 0, 0), []*raftpb.Entry{e})
}

// If this fails, a log written on a real disk is not what comes back.
func TestReopenOnDisk(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, walDir)
	seed := testSeed(t)
	h := new(history)
	m := &member{fs: rooted{wal.OS(), root}, rnd: newRand(seed, 0), hist: h}
	check(t, m.life(25))
	check(t, m.log.Close())
	for range 3 {
		n, l, err := recovered(m.fs, h)
		check(t, err)
		if n != len(h.deeds) {
			t.Fatalf("%d of %d deeds", n, len(h.deeds))
		}
		m = resume(m.fs, m.rnd, h, n, l)
		check(t, m.work(10))
		check(t, m.log.Close())
	}
	info, err := os.Stat(dir)
	check(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("log directory has mode %v", info.Mode())
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	check(t, err)
	for _, name := range names {
		info, err := os.Stat(name)
		check(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
}

// rooted moves the paths of the load generator into a directory.
type rooted struct {
	wal.FS
	root string
}

func (r rooted) at(path string) string                { return filepath.Join(r.root, path) }
func (r rooted) MkdirAll(dir string) error            { return r.FS.MkdirAll(r.at(dir)) }
func (r rooted) ReadDir(dir string) ([]string, error) { return r.FS.ReadDir(r.at(dir)) }
func (r rooted) Rename(from, to string) error         { return r.FS.Rename(r.at(from), r.at(to)) }
func (r rooted) Remove(path string) error             { return r.FS.Remove(r.at(path)) }
func (r rooted) RemoveAll(path string) error          { return r.FS.RemoveAll(r.at(path)) }
func (r rooted) SyncDir(dir string) error             { return r.FS.SyncDir(r.at(dir)) }
func (r rooted) OpenFile(path string, flag int, perm os.FileMode) (wal.File, error) {
	return r.FS.OpenFile(r.at(path), flag, perm)
}

// If this fails, leaders wait for the disk for nothing, or do not wait when they
// must.
func TestSyncNeeded(t *testing.T) {
	l, err := wal.Create(memfs.New(), "wal", goldenMetadata)
	check(t, err)
	for i, step := range []struct {
		hs      *raftpb.HardState
		entries []*raftpb.Entry
		want    bool
	}{
		{newState(1, 0, 0), nil, true},
		{newState(1, 2, 0), nil, true},
		{newState(1, 2, 0), nil, false},
		{nil, goldenEntries(), true},
		{newState(1, 2, 2), nil, false},
		{nil, nil, false},
		{&raftpb.HardState{}, nil, false},
	} {
		check(t, l.Append(step.hs, step.entries))
		if got := l.SyncNeeded(); got != step.want {
			t.Errorf("step %d: sync needed %v", i, got)
		}
		check(t, l.Sync())
		if l.SyncNeeded() {
			t.Errorf("step %d: still needed after a sync", i)
		}
	}
	check(t, l.Close())
}
