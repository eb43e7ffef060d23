package mvcc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// lockedKiB is how much memory of this process is locked.
func lockedKiB(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmLck:\s+(\d+) kB`).FindSubmatch(text)
	if m == nil {
		t.Fatal("no VmLck in /proc/self/status")
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// If this fails, a member that was told to keep its database in RAM is paged out.
func TestLockMemory(t *testing.T) {
	before := lockedKiB(t)
	s, err := Open(filepath.Join(t.TempDir(), "db"), Options{NoSync: true, LockMemory: true})
	if errors.Is(err, ErrLockMemory) {
		t.Skipf("not permitted here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if now := lockedKiB(t); now <= before {
		t.Errorf("%d KiB are locked, %d were before", now, before)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if now := lockedKiB(t); now > before {
		t.Errorf("%d KiB stay locked after the close, %d were before", now, before)
	}
}

// If this fails, a member that may not lock memory runs without, or says nothing
// that helps.
func TestLockMemoryRefused(t *testing.T) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread that gave up its right ends with the goroutine
		done <- openWithoutRight(filepath.Join(t.TempDir(), "db"))
	}()
	err := <-done
	if !errors.Is(err, ErrLockMemory) || !strings.Contains(err.Error(), "may lock 0 bytes") || !strings.Contains(err.Error(), "LimitMEMLOCK") {
		t.Errorf("%v, want ErrLockMemory with the limit", err)
	}
}

// openWithoutRight opens a store on a thread that may not lock memory.
func openWithoutRight(path string) error {
	head, data := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	if err := unix.Capget(&head, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	data[0].Effective &^= 1 << unix.CAP_IPC_LOCK
	if err := unix.Capset(&head, &data[0]); err != nil {
		return fmt.Errorf("give up CAP_IPC_LOCK: %w", err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return err
	}
	none := limit
	none.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &none); err != nil {
		return err
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit) }()
	s, err := Open(path, Options{NoSync: true, LockMemory: true})
	if err == nil {
		_ = s.Close()
	}
	return err
}
