package main

import (
	"bytes"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMain lets the tests' program be started again for the probes, as the program does.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == probeArg {
		main()
		return
	}
	os.Exit(m.Run())
}

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
	const want = "put-1 put-100 put-1000 put-8k txn range range-serializable list list-10000 count keys-only list-big watch-10x100 watch-1000x1 lease"
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
	if got := strings.Join(names, " "); got != "list list-10000 list-big watch-10x100 watch-1000x1" || s.wanted(restartName) {
		t.Errorf("-loads watch,list picks %s", got)
	}
}

// If this fails, the measurements that take minutes at full size are broken, which nobody would notice before a release.
func TestSmallCalmGrowthAndMix(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	binary := filepath.Join(t.TempDir(), "kvorum")
	if text, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../cmd/kvorum").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var out bytes.Buffer
	err := run(t.Context(), []string{
		"-kvorum-bin", binary, "-alone", "-dir", t.TempDir(), "-nodes", "1", "-rounds", "1", "-duration", "100ms", "-settle", "20ms",
		"-loads", "calm,growth,kubernetes,expire", "-keys", "2000", "-leases", "300", "-lease-ttl", "2",
		"-calm-keys", "2000", "-calm-behind", "1000", "-calm-mib", "4", "-growth-keys", "100,1000", "-growth-clients", "3",
	}, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, row := range []string{
		"| compaction of 400 of 2000 keys | **Kvorum** |", "| a watcher 1000 revisions behind catches up |", "| snapshot save |",
		"| defragmentation of 4 MiB |", "; 1000 keys | **Kvorum** |", "3 watchers on as many connections",
		"| 300 leases with a key each |", "| like Kubernetes: 2000 objects",
	} {
		if !strings.Contains(out.String(), row) {
			t.Errorf("there is no %q in\n%s", row, out.String())
		}
	}
	// A flush in the middle of a slice makes its reader begin again: some events may be found twice.
	found := regexp.MustCompile(`read \d+ records of history and found (\d+) events in them`).FindStringSubmatch(out.String())
	if found == nil {
		t.Fatalf("nothing about the history in\n%s", out.String())
	}
	if n, err := strconv.Atoi(found[1]); err != nil || n < 1000 {
		t.Errorf("%s events found for a watcher that was 1000 behind", found[1])
	}
}

// A figure that is read from the wrong place would be praised or blamed for nothing.
func TestPerfOutput(t *testing.T) {
	n, err := parsePerf([]byte("1234567,,instructions:u,1000,100.00,,\n"))
	if err != nil || n != 1234567 {
		t.Errorf("%v, %v", n, err)
	}
	if _, err := parsePerf([]byte("<not supported>,,instructions,0,100.00,,\n")); err == nil {
		t.Error("an unsupported counter counted")
	}
	var out bytes.Buffer
	if err := newTable(&out, []binary{{name: "K"}}).add("put", [][]figures{{{throughput: 100, counted: true, instructions: 300}}}); err != nil ||
		!strings.Contains(out.String(), "thousand instructions/op |") || !strings.Contains(out.String(), "| 300 |") {
		t.Errorf("%v, printed %s", err, out.String())
	}
}
