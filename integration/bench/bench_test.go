package main

import (
	"bytes"
	"math"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Wrong arithmetic here makes every figure of docs/bench.md a lie.
func TestMediansAndRatios(t *testing.T) {
	rounds := []figures{{throughput: 10, p99: 1}, {throughput: 40, p99: 3}, {throughput: 20, p99: 2}}
	if m := medianOf(rounds); m[0] != 20 || m[2] != 2 {
		t.Errorf("medians of three: %v", m)
	}
	if m := medianOf(rounds[:2]); m[0] != 25 {
		t.Errorf("median of two: %v", m)
	}
	var out bytes.Buffer
	table := newTable(&out, []binary{{name: "K"}, {name: "E"}})
	err := table.add("put", [][]figures{
		{{throughput: 100, p50: 1, p99: 4, cpu: 10, memory: 50, fsyncs: 1, written: 2}},
		{{throughput: 200, p50: 2, p99: 2, cpu: 30, memory: 50, fsyncs: 1, written: 2}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.end(); err != nil {
		t.Fatal(err)
	}
	const want = `
| load | system | ops/s | p50 ms | p99 ms | server CPU µs/op | RSS MiB | fsyncs/op | KiB written/op |
|---|---|---:|---:|---:|---:|---:|---:|---:|
| put | **K** | 100 | 1.00 | 4.00 | 10.0 | 50.0 | 1.00 | 2.00 |
|  | E | 200 | 2.00 | 2.00 | 30.0 | 50.0 | 1.00 | 2.00 |
|  | E ÷ K | ×2.00 | ×2.00 | ×0.500 | ×3.00 | ×1.00 | ×1.00 | ×1.00 |

Where K is more than 10% behind E (E ÷ K):

- put: ops/s ×2.00
- put: p99 ms ×0.500
`
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
	}
	if got := ratioText(math.NaN()); got != "–" {
		t.Errorf("nothing ÷ nothing is %s", got)
	}
}

// The CPU of a server is read from /proc: reading the wrong field would charge it for something else.
func TestCPUOfThisProcess(t *testing.T) {
	before, err := cpuOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for started := time.Now(); time.Since(started) < 60*time.Second; {
		for i := range 1_000_000 {
			sum += i % 7
		}
		after, err := cpuOf(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if used := after - before; used >= 50*time.Millisecond {
			if limit := time.Since(started)*time.Duration(runtime.NumCPU()) + 10*clockTick; used > limit {
				t.Errorf("%s of CPU in %s on %d CPUs", used, time.Since(started), runtime.NumCPU())
			}
			return
		}
	}
	t.Errorf("a minute of work cost less than 50 ms of CPU (%d)", sum)
}

// Loads of one group share a cluster; a load that is left out or repeated makes the table wrong.
func TestGroupsHoldEveryLoadOnce(t *testing.T) {
	s, err := parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for group := range groups(s) {
		for _, l := range group {
			names = append(names, l.name)
			if l.group != group[0].group {
				t.Errorf("%s is with %s", l.name, group[0].name)
			}
		}
	}
	const want = "put-1 put-100 put-1000 put-8k txn range range-serializable list count keys-only watch-10x100 watch-1000x1 lease"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("loads %s, want %s", got, want)
	}
	s.loads = "watch,list"
	names = nil
	for group := range groups(s) {
		for _, l := range group {
			names = append(names, l.name)
		}
	}
	if got := strings.Join(names, " "); got != "list watch-10x100 watch-1000x1" || s.wanted(restartName) {
		t.Errorf("-loads watch,list picks %s", got)
	}
}
