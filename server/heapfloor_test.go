package server

import (
	"os"
	"path/filepath"
	"testing"
)

// If this fails, a small container is given more garbage than it can hold, or a large store more than Go would allow.
func TestHeapFloor(t *testing.T) {
	for _, c := range []struct {
		memory, live uint64
		percent      int
	}{
		{24 << 30, 16 << 20, 400},
		{24 << 30, 1 << 20, 1600},
		{24 << 30, 64 << 20, 100},
		{24 << 30, 600 << 20, 100},
		{512 << 20, 8 << 20, 200},
		{64 << 20, 8 << 20, 100},
	} {
		if got := gcPercent(heapFloor(c.memory), c.live); got != c.percent {
			t.Errorf("%d MiB of %d MiB live: %d%%, want %d%%", c.live>>20, c.memory>>20, got, c.percent)
		}
	}
}

// If this fails, the bound of a container is not seen.
func TestControlGroupLimit(t *testing.T) {
	root := t.TempDir()
	for dir, limit := range map[string]string{"a": "1000000\n", "a/b": "max\n", "a/b/c": "2000000\n"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, dir, "memory.max"), []byte(limit), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const none = 1<<64 - 1
	for own, want := range map[string]uint64{
		"0::/a/b/c\n": 1000000, "0::/\n": none, "12:memory:/a\n": none, "12:memory:/x\n0::/a\n": 1000000, "": none, "0::/gone\n": none,
	} {
		if got := controlGroupLimit(root, own); got != want {
			t.Errorf("%q: %d, want %d", own, got, want)
		}
	}
}
