package memfs_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/kvorum/kvorum/raft/wal"
	"github.com/kvorum/kvorum/raft/wal/memfs"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, fs *memfs.FS, path string) wal.File {
	t.Helper()
	f, err := fs.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	check(t, err)
	return f
}

func contents(t *testing.T, fs *memfs.FS, path string) string {
	t.Helper()
	f, err := fs.OpenFile(path, os.O_RDONLY, 0)
	check(t, err)
	size, err := f.Size()
	check(t, err)
	b := make([]byte, size)
	_, err = f.ReadAt(b, 0)
	check(t, err)
	return string(b)
}

// If this fails, the crash tests of the log test nothing.
func TestCrashLosesWhatIsNotSynced(t *testing.T) {
	fs := memfs.New()
	f := create(t, fs, "a")
	_, err := f.WriteAt([]byte("kept"), 0)
	check(t, err)
	check(t, f.SyncData())
	check(t, fs.SyncDir("."))
	_, err = f.WriteAt([]byte("lost"), 0)
	check(t, err)
	check(t, fs.Rename("a", "b"))
	create(t, fs, "c")
	fs.Crash(nil)
	names, err := fs.ReadDir(".")
	check(t, err)
	if !slices.Equal(names, []string{"a"}) || contents(t, fs, "a") != "kept" {
		t.Errorf("after the crash: %v, %q", names, contents(t, fs, "a"))
	}
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, memfs.ErrCrashed) {
		t.Errorf("a file from before the crash: %v", err)
	}
}

// If this fails, a log that retries a failed sync would pass its tests.
func TestFailedSyncIsNeverMadeGood(t *testing.T) {
	fs := memfs.New()
	f := create(t, fs, "a")
	check(t, fs.SyncDir("."))
	_, err := f.WriteAt([]byte("gone"), 0)
	check(t, err)
	broken := errors.New("broken")
	fs.FailAt(1, broken)
	if err := f.Sync(); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	check(t, f.Sync())
	if contents(t, fs, "a") != "gone" {
		t.Error("the bytes left the cache before the crash")
	}
	fs.Crash(nil)
	if got := contents(t, fs, "a"); got != "" {
		t.Errorf("survived: %q", got)
	}
}

// If this fails, no crash test ever sees a torn write.
func TestTornWrites(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(200) {
		fs := memfs.New()
		f := create(t, fs, "a")
		check(t, f.Preallocate(1024))
		check(t, f.Sync())
		check(t, fs.SyncDir("."))
		b := slices.Repeat([]byte{'x'}, 1024)
		fs.StopAt(1)
		if _, err := f.WriteAt(b, 0); !errors.Is(err, memfs.ErrCrashed) {
			t.Fatal(err)
		}
		fs.Crash(rand.New(rand.NewPCG(seed, 0)))
		got := contents(t, fs, "a")
		for i := range got {
			if got[i] != got[i-i%512] {
				t.Fatalf("torn inside a sector at %d", i)
			}
		}
		seen[string([]byte{got[0], got[512]})] = true
	}
	if len(seen) != 4 {
		t.Errorf("outcomes seen: %v", seen)
	}
}
