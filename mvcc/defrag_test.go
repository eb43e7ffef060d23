package mvcc

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
)

// If this fails, a follower that defragments when the leader's snapshot arrives ends, or goes on with the old keys.
func TestInstallOvertakesDefragmentation(t *testing.T) {
	dir := t.TempDir()
	newer, err := Open(filepath.Join(dir, "newer"), testOptions())
	if err != nil {
		t.Fatal(err)
	}
	fill(t, newer, 300)
	if err := newer.Close(); err != nil {
		t.Fatal(err)
	}
	s := openTest(t, testOptions())
	fill(t, s, 100)
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	c, begun := s.beginCopy(context.Background())
	if !begun {
		t.Fatal("a copy is running already")
	}
	fresh, err := openDisk(s.path+".tmp", testOptions())
	if err != nil {
		t.Fatal(err)
	}
	last, err := s.copyAll(c, fresh)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Install(filepath.Join(dir, "newer")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.swap(c, fresh, s.path+".tmp", last); !errors.Is(err, ErrOvertaken) {
		t.Errorf("the copy of the old file took the place of the installed one: %v", err)
	}
	if err := fresh.db.Close(); err != nil {
		t.Fatal(err)
	}
	if n := s.Stats().Keys; n != 300 {
		t.Errorf("%d keys after the installation, want 300", n)
	}
}

// If this fails, an operator who defragments while the member does so by itself gets an error, or both write one file.
func TestSecondDefragmentationWaits(t *testing.T) {
	s := openTest(t, testOptions())
	fill(t, s, 100)
	c, begun := s.beginCopy(context.Background())
	if !begun {
		t.Fatal("a copy is running already")
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Defragment(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting with an ended context gave %v", err)
	}
	second := make(chan error, 1)
	go func() { second <- s.Defragment(context.Background()) }()
	if err := s.copyAndSwap(c); err != nil {
		t.Fatal(err)
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
	if err := s.Defragment(context.Background()); err != nil {
		t.Errorf("one after the other: %v", err)
	}
}
