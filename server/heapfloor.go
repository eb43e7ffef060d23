package server

import (
	"context"
	"os"
	"path"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The floor under the garbage that is let grow before it is collected. Go waits
// until there is as much garbage as live memory, which on a small store, where
// little lives, means many collections a second under load.
const (
	heapFloorMax   = 64 << 20
	heapFloorShare = 32 // of the memory that there is, the floor is at most one part in so many
	gcPercentUsual = 100
)

// keepHeapFloor lets the process collect garbage when there is as much as live
// memory, but not before there is as much as the floor. It costs the floor in
// memory, and nothing once the store is larger. Who sets GOGC decides alone.
func keepHeapFloor(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	floor := heapFloor(memoryLimit())
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	percent := gcPercentUsual
	keep := func(time.Time) {
		metrics.Read(live)
		now := gcPercent(floor, live[0].Value.Uint64())
		if now*4 > percent*5 || now*5 < percent*4 { // setting it stops the process for a moment
			debug.SetGCPercent(now)
			percent = now
		}
	}
	keep(time.Now())
	every(ctx, time.Second, keep)
}

// heapFloor is the floor of a process that may use so many bytes.
func heapFloor(memory uint64) uint64 { return min(heapFloorMax, memory/heapFloorShare) }

// gcPercent is how much garbage in per cent of the live memory makes the floor.
func gcPercent(floor, live uint64) int {
	const liveMin = 4 << 20                                       // Go's own floor
	return max(gcPercentUsual, int(floor*100/max(live, liveMin))) //nolint:gosec // at most 1600
}

// memoryLimit is how many bytes this process may use: the least of what the
// machine has, its control group allows, and GOMEMLIMIT says.
func memoryLimit() uint64 {
	limit := uint64(debug.SetMemoryLimit(-1)) //nolint:gosec // never negative
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		limit = min(limit, info.Totalram*uint64(info.Unit))
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return limit
	}
	return min(limit, controlGroupLimit("/sys/fs/cgroup", string(own)))
}

// controlGroupLimit is the least memory.max on the way from the root to the
// group that the text of /proc/self/cgroup names.
func controlGroupLimit(root, own string) uint64 {
	limit := uint64(1<<64 - 1)
	for line := range strings.Lines(own) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for dir := path.Join("/", group); ; dir = path.Dir(dir) {
			if text, err := os.ReadFile(path.Join(root, dir, "memory.max")); err == nil {
				if bytes, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil {
					limit = min(limit, bytes)
				}
			}
			if dir == "/" {
				break
			}
		}
	}
	return limit
}
