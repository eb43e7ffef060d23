package wal_test

import (
	"bytes"
	"encoding/json"
	"errors"
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

func newSnapshot(index, term uint64, data string) *raftpb.Snapshot {
	return &raftpb.Snapshot{
		Data:     []byte(data),
		Metadata: &raftpb.SnapshotMetadata{Index: &index, Term: &term, ConfState: &raftpb.ConfState{Voters: []uint64{1}}},
	}
}

// If this fails, etcd cannot read the snapshot files, and a downgrade panics.
func TestSnapFileBytes(t *testing.T) {
	fs := memfs.New()
	check(t, fs.MkdirAll("snap"))
	check(t, wal.WriteSnapFile(fs, "snap", newSnapshot(5, 2, "{}")))
	got := readFile(t, fs, "snap/0000000000000002-0000000000000005.snap")
	want := unhex(t, `08 a8 ba 91 8c 01 12 0e 0a 02 7b 7d 12 08 0a 02 08 01 10 05 18 02`)
	if !bytes.Equal(got, want) {
		t.Errorf("file  %x\nwant %x", got, want)
	}
}

// If this fails, a damaged snapshot file is believed, or a good older one is not
// found behind it.
func TestNewestSnapFile(t *testing.T) {
	fs := memfs.New()
	check(t, fs.MkdirAll("snap"))
	for _, s := range []*raftpb.Snapshot{newSnapshot(5, 2, "a"), newSnapshot(9, 1, "b"), newSnapshot(7, 3, "c")} {
		check(t, wal.WriteSnapFile(fs, "snap", s))
	}
	newest := func(want string) {
		t.Helper()
		s, err := wal.NewestSnapFile(fs, "snap", nil)
		check(t, err)
		if string(s.Data) != want {
			t.Errorf("newest is %s, want %s", s.Data, want)
		}
	}
	newest("c") // term before index
	patch(t, fs, "snap/0000000000000003-0000000000000007.snap", 10, []byte{'X'})
	newest("a")
	s, err := wal.NewestSnapFile(fs, "snap", func(f wal.SnapFile) bool { return f.Index == 9 && f.Term == 1 })
	if err != nil || string(s.Data) != "b" {
		t.Errorf("chosen: %v, %v", s, err)
	}
	names, err := fs.ReadDir("snap")
	check(t, err)
	if !slices.Contains(names, "0000000000000003-0000000000000007.snap.broken") {
		t.Errorf("the damaged file was not set aside: %v", names)
	}
	for _, c := range []struct {
		bytes string
		want  error
	}{{"", wal.ErrEmptySnapshot}, {"0801", wal.ErrEmptySnapshot}, {"1201 00", wal.ErrEmptySnapshot}, {"0801 1201 00", wal.ErrSnapCRCMismatch}} {
		writeFile(t, fs, "snap/x", unhex(t, c.bytes))
		if _, err := wal.ReadSnapFile(fs, "snap/x"); !errors.Is(err, c.want) {
			t.Errorf("%q: %v, want %v", c.bytes, err, c.want)
		}
	}
	for _, name := range []string{"0000000000000002-0000000000000005.snap", "0000000000000001-0000000000000009.snap"} {
		check(t, fs.Remove(filepath.Join("snap", name)))
	}
	if _, err := wal.NewestSnapFile(fs, "snap", nil); !errors.Is(err, wal.ErrNoSnapshot) {
		t.Errorf("no file left: %v", err)
	}
}

// If this fails, half-received databases fill the disk, or the one that a start
// needs is deleted.
func TestSnapDirCleaning(t *testing.T) {
	fs := memfs.New()
	check(t, fs.MkdirAll("snap"))
	for _, name := range []string{"db", "tmp123", "tmp-x.snap", "db.tmp.7", wal.SnapDBName(3), wal.SnapDBName(0x10), wal.SnapDBName(0x11), "zz.snap.db"} {
		writeFile(t, fs, filepath.Join("snap", name), []byte("x"))
	}
	removed, err := wal.CleanSnapDir(fs, "snap")
	check(t, err)
	if want := []string{"db.tmp.7", "tmp-x.snap", "tmp123"}; !slices.Equal(removed, want) {
		t.Errorf("cleaned %v, want %v", removed, want)
	}
	removed, err = wal.RemoveSnapDBs(fs, "snap", 0x11)
	check(t, err)
	if want := []string{"0000000000000003.snap.db", "0000000000000010.snap.db"}; !slices.Equal(removed, want) {
		t.Errorf("removed %v, want %v", removed, want)
	}
	path, err := wal.SnapDBPath(fs, "snap", 0x11)
	if err != nil || path != "snap/0000000000000011.snap.db" {
		t.Errorf("received database: %s, %v", path, err)
	}
	if _, err := wal.SnapDBPath(fs, "snap", 4); !errors.Is(err, wal.ErrNoSnapDB) {
		t.Errorf("missing database: %v", err)
	}
	for i := range uint64(7) {
		check(t, wal.WriteSnapFile(fs, "snap", newSnapshot(i+1, 1, "x")))
	}
	removed, err = wal.PurgeSnaps(fs, "snap", wal.KeepFiles)
	check(t, err)
	if want := []string{wal.SnapFileName(1, 1), wal.SnapFileName(2, 1)}; !slices.Equal(removed, want) {
		t.Errorf("purged %v, want %v", removed, want)
	}
}

// If this fails, etcd 3.6 panics on our snapshot after a downgrade. The expected
// file has the form that an etcd wrote for a cluster of this membership.
func TestLegacyTree(t *testing.T) {
	got := wal.LegacyTree(wal.Membership{
		Members: []wal.Member{
			{ID: 0xbd, PeerURLs: []string{"http://b:2380"}, IsLearner: true},
			{ID: 0xa1, Name: "n1", PeerURLs: []string{"http://a:2380"}, ClientURLs: []string{"http://a:2379"}},
		},
		Removed:        []uint64{0xc3},
		ClusterVersion: "3.7.0",
	})
	text := strings.Replace(string(got), strings.Repeat("null,", 994)+"null", "NULLS", 1)
	want, err := os.ReadFile("testdata/legacy.json")
	check(t, err)
	var compact bytes.Buffer
	check(t, json.Compact(&compact, bytes.ReplaceAll(want, []byte(`"NULLS"`), []byte("null"))))
	if text = strings.Replace(text, "NULLS", "null", 1); text != compact.String() {
		t.Errorf("tree\n%s\nwant\n%s", text, compact.String())
	}
}

// If this fails, a cluster with a long history of removed members makes
// snapshots that etcd 3.6 cannot read: its event queue has 1000 places.
func TestLegacyTreeWithManyRemoved(t *testing.T) {
	m := wal.Membership{}
	for id := range uint64(1003) {
		m.Removed = append(m.Removed, id+1)
	}
	var tree struct {
		WatcherHub struct {
			EventHistory struct {
				Queue struct {
					Events                      []struct{ Node struct{ ModifiedIndex int } }
					Size, Front, Back, Capacity int
				}
				StartIndex, LastIndex int
			}
		}
		CurrentIndex int
	}
	check(t, json.Unmarshal(wal.LegacyTree(m), &tree))
	h := tree.WatcherHub.EventHistory
	if h.StartIndex != 4 || h.LastIndex != 1003 || tree.CurrentIndex != 1003 || h.Queue.Size != 1000 || len(h.Queue.Events) != 1000 {
		t.Fatalf("history from %d to %d, %d events", h.StartIndex, h.LastIndex, h.Queue.Size)
	}
	for i := range h.Queue.Size {
		if got := h.Queue.Events[(h.Queue.Front+i)%h.Queue.Capacity].Node.ModifiedIndex; got != h.StartIndex+i {
			t.Fatalf("event %d has index %d", i, got)
		}
	}
}

func FuzzSnapFile(f *testing.F) {
	f.Add(unhex(f, `08 a8 ba 91 8c 01 12 0e 0a 02 7b 7d 12 08 0a 02 08 01 10 05 18 02`))
	f.Add([]byte{0x08, 1, 0x12, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		fs := memfs.New()
		check(t, fs.MkdirAll("snap"))
		writeFile(t, fs, "snap/x", b)
		s, err := wal.ReadSnapFile(fs, "snap/x")
		if err != nil {
			return
		}
		check(t, wal.WriteSnapFile(fs, "snap", s))
		again, err := wal.ReadSnapFile(fs, filepath.Join("snap", wal.SnapFileName(s.GetMetadata().GetIndex(), s.GetMetadata().GetTerm())))
		if proto.Size(s) == 0 {
			return // an empty message is not a snapshot and is refused
		}
		check(t, err)
		if !proto.Equal(s, again) {
			t.Fatalf("%v became %v", s, again)
		}
	})
}
