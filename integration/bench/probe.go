package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/kvorum/kvorum/internal/process"
)

// cost is what servers have spent since they started, summed over the members of a cluster.
type cost struct {
	cpu     time.Duration
	fsyncs  float64 // write-ahead log syncs and backend commits
	written float64 // bytes sent to the disk
}

func (c cost) minus(d cost) cost {
	return cost{c.cpu - d.cpu, c.fsyncs - d.fsyncs, c.written - d.written}
}

// clockTick is the unit of CPU time in /proc: 100 per second on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// cpu adds up what the members have used.
func cpu(c *process.Cluster) (time.Duration, error) {
	total := time.Duration(0)
	for _, m := range c.Members {
		used, err := cpuOf(m.PID())
		if err != nil {
			return 0, err
		}
		total += used
	}
	return total, nil
}

// cpuOf is user and system time of a process, all threads.
func cpuOf(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field, the name in parentheses, may hold spaces; utime and stime are fields 14 and 15.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields after the name", pid, len(fields))
	}
	ticks := int64(0)
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// procNumber reads "name: number" from a file of /proc/PID.
func procNumber(pid int, file, name string) (float64, error) {
	path := fmt.Sprintf("/proc/%d/%s", pid, file)
	text, err := os.ReadFile(path) //nolint:gosec // a path of ours
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, name+":"); found {
			return strconv.ParseFloat(strings.Fields(rest)[0], 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}

// memory is the resident memory of all members in bytes.
func memory(c *process.Cluster) (float64, error) {
	total := 0.0
	for _, m := range c.Members {
		kib, err := procNumber(m.PID(), "status", "VmRSS")
		if err != nil {
			return 0, err
		}
		total += kib * 1024
	}
	return total, nil
}

// spent is the cost so far. The pages it asks for cost the server too, so the CPU is read last before a load (first =
// false) and first after it (first = true).
func spent(ctx context.Context, c *process.Cluster, first bool) (cost, error) {
	total := cost{}
	var err error
	if first {
		if total.cpu, err = cpu(c); err != nil {
			return total, err
		}
	}
	for _, m := range c.Members {
		written, err := procNumber(m.PID(), "io", "write_bytes")
		if err != nil {
			return total, err
		}
		fsyncs, err := metrics(ctx, m, "etcd_disk_wal_fsync_duration_seconds_count", "etcd_disk_backend_commit_duration_seconds_count")
		if err != nil {
			return total, err
		}
		total.written, total.fsyncs = total.written+written, total.fsyncs+fsyncs
	}
	if !first {
		total.cpu, err = cpu(c)
	}
	return total, err
}

// metrics adds up metrics without labels.
func metrics(ctx context.Context, m *process.Member, names ...string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.ClientURL+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, fmt.Errorf("metrics of %s: %w", m.Name, err)
	}
	defer func() { _ = answer.Body.Close() }() // read to its end or not needed
	total, found := 0.0, 0
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		for _, name := range names {
			if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
				n, err := strconv.ParseFloat(value, 64)
				if err != nil {
					return 0, fmt.Errorf("metric %s of %s: %w", name, m.Name, err)
				}
				total, found = total+n, found+1
			}
		}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("metrics of %s: %w", m.Name, err)
	}
	if found != len(names) {
		return 0, fmt.Errorf("%s shows %d of the metrics %v", m.Name, found, names)
	}
	return total, nil
}
