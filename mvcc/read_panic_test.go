package mvcc

import (
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// If this fails, looking at a damaged file hangs for ever instead of saying
// that it is damaged: bbolt panics on some damage, and a transaction left open
// blocks the closing of the file.
func TestPanicWhileReadingDoesNotHoldTheFile(t *testing.T) {
	d, err := openDisk(filepath.Join(t.TempDir(), "db"), Options{NoSync: true}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	err = guarded(func() error {
		return d.read(func(*bolt.Tx) error { panic("page 7: unexpected page type") })
	})
	if err == nil {
		t.Fatal("a panic is no error")
	}
	closed := make(chan error, 1)
	go func() { closed <- d.db.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the file cannot be closed after a panic in a reader")
	}
}
