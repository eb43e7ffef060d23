package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/process"
)

// crashPoints are all names that the code gives to crash.Here.
func crashPoints(t *testing.T) []string {
	t.Helper()
	call := regexp.MustCompile(`crash\.Here\("([^"]+)"\)`)
	var names []string
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "integration" || d.Name() == "crash" || strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2) {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range call.FindAllSubmatch(text, -1) {
			names = append(names, string(m[1]))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	if names = slices.Compact(names); len(names) < 20 {
		t.Fatalf("only %d crash points found: %v", len(names), names)
	}
	return names
}

// armedBinary is a server with crash points.
func armedBinary(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("KVORUM_FAILPOINTS_BIN"); path != "" {
		return path
	}
	binaries.mu.Lock()
	defer binaries.mu.Unlock()
	if binaries.armed == "" {
		path, err := build("kvorum-failpoints", "-tags", "failpoints")
		if err != nil {
			t.Fatal(err)
		}
		binaries.armed = path
	}
	return binaries.armed
}

// arm makes the next process of m die when it comes to a point for the nth
// time, n from 0.
func arm(m *process.Member, point string, n int) {
	term := `return("kill")`
	if n > 0 {
		term = fmt.Sprintf("%d*off->%s", n, term)
	}
	m.Env = []string{"GOFAIL_FAILPOINTS=" + point + "=" + term}
}

// The circumstances in which a point may be reached.
type recipe int

const (
	everyday  recipe = iota // a member of three with a torn log that is far behind
	bigValues               // a single node whose log fills a segment
	firstDays               // a single node without data
)

// recipeOf says where to look for a point first; any other is tried after it.
func recipeOf(point string) recipe {
	switch {
	case strings.HasPrefix(point, "wal/create"):
		return firstDays
	case strings.HasPrefix(point, "wal/cut"), strings.HasPrefix(point, "wal/after-cut"):
		return bigValues
	}
	return everyday
}

// If this fails, a crash at the wrong moment loses acknowledged writes or leaves
// a member that cannot start again.
func TestCrashPoints(t *testing.T) {
	t.Parallel()
	r := newRand(t)
	points := crashPoints(t)
	binary := armedBinary(t)
	byRecipe := map[recipe][]string{}
	for _, p := range points {
		byRecipe[recipeOf(p)] = append(byRecipe[recipeOf(p)], p)
	}
	reached := map[string]bool{}
	crashEveryday(t, r, binary, byRecipe[everyday], reached)
	crashSingle(t, r, binary, byRecipe[bigValues], reached, bigValues)
	crashSingle(t, r, binary, byRecipe[firstDays], reached, firstDays)
	for _, p := range points {
		if !reached[p] {
			t.Errorf("no process came to the crash point %s; if it is new, find out when it is reached and add that to this test", p)
		}
	}
}

// crashEveryday lets one member of three crash at each of the points, one after
// the other, while the others go on.
func crashEveryday(t *testing.T, r *rand.Rand, binary string, points []string, reached map[string]bool) {
	e := start(t, process.Options{Size: 3, Binary: binary, Args: smallLog()})
	j := e.load(r, "c/", 3, 64)
	j.progress(100)
	for range rounds(1, 5) {
		for _, point := range points {
			n := 0
			if oftenPassed(point) {
				n = r.IntN(20)
			} else if reached[point] {
				n = r.IntN(4)
			}
			died := e.crashAt(j, r, point, n)
			reached[point] = reached[point] || died
		}
	}
	j.finish()
}

// oftenPassed: a member under load comes there again and again.
func oftenPassed(point string) bool {
	for _, p := range []string{"mvcc/before-flush", "mvcc/after-flush", "raft/before-append", "sync", "server/"} {
		if strings.Contains(point, p) && !strings.HasPrefix(point, "snap") && !strings.HasPrefix(point, "peer") {
			return true
		}
	}
	return false
}

// crashAt restarts a random member so that it dies at a point, and again
// without; it must then catch up. The member has a torn record at the end of
// its log and is behind further than the others' logs reach.
func (e *env) crashAt(j *journal, r *rand.Rand, point string, n int) bool {
	e.t.Helper()
	m := e.Members[r.IntN(len(e.Members))]
	m.Kill()
	tearLog(e.t, m.Dir, r)
	e.avoid(m)
	j.progress(200)
	e.avoid()
	goal := e.mustStatus(e.leader(m)).RaftIndex + 500
	arm(m, point, n)
	if err := m.Launch(); err != nil {
		e.t.Fatal(err)
	}
	died := e.disturb(m, goal)
	if !died {
		m.Kill()
	}
	m.Env = nil
	e.mustStart(m)
	e.caughtUp([]*process.Member{m})
	e.t.Logf("%s, passed %d times before: died %t", point, n, died)
	return died
}

// disturb compacts and defragments until the member has died of its own, or has
// come as far as an index in the log.
func (e *env) disturb(m *process.Member, goal uint64) (died bool) {
	e.t.Helper()
	deadline := time.NewTimer(waitMax)
	defer deadline.Stop()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	exited := m.Exited()
	for {
		select {
		case <-exited:
			return killedItself(e.t, m)
		case <-deadline.C:
			return false
		case <-tick.C:
			e.compactAndDefragment(m)
			if s, err := e.status(m); err == nil && s.RaftAppliedIndex >= goal {
				return false
			}
		}
	}
}

func (e *env) compactAndDefragment(m *process.Member) {
	ctx, cancel := e.brief(time.Second)
	defer cancel()
	a, err := e.client.Get(ctx, "x")
	if err != nil {
		return
	}
	// Errors of both are what the crash makes.
	_, _ = e.client.Compact(ctx, a.Header.Revision-1, false)
	_ = e.at(m).Defragment(ctx, m.Endpoint())
}

// killedItself: a crash point kills; any other end is a failure of the member.
func killedItself(t *testing.T, m *process.Member) bool {
	t.Helper()
	status, _ := m.Ended().Sys().(syscall.WaitStatus)
	if !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Errorf("%s ended with %v, not at the crash point:\n%s", m.Name, m.Ended(), m.LogTail(10))
	}
	return true
}

// crashSingle lets single nodes crash and checks that each starts again with
// all that it had acknowledged.
func crashSingle(t *testing.T, r *rand.Rand, binary string, points []string, reached map[string]bool, how recipe) {
	e := start(t, process.Options{Size: 1, Binary: binary})
	m := e.Members[0]
	for _, point := range points {
		m.Kill()
		arm(m, point, 0)
		if how == firstDays {
			if err := os.RemoveAll(m.Dir); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Launch(); err != nil {
			t.Fatal(err)
		}
		prefix := strings.ReplaceAll(point, "/", "-") + "/"
		acked, died := e.fillSegment(m, prefix, how)
		reached[point] = reached[point] || died
		m.Kill()
		m.Env = nil
		e.mustStart(m)
		for key, rev := range acked {
			a, err := e.client.Get(t.Context(), key)
			if err != nil || revisionOf(a.Kvs) != rev {
				t.Errorf("after a crash at %s, %s is not at revision %d: %v", point, key, rev, err)
			}
		}
		t.Logf("%s with %d acknowledged writes: died %t", point, len(acked), died)
	}
}

// fillSegment writes until the member dies or its log must have gone through a
// segment. It gives the revision of each acknowledged key.
func (e *env) fillSegment(m *process.Member, prefix string, how recipe) (acked map[string]int64, died bool) {
	e.t.Helper()
	value := "x"
	if how == bigValues {
		value = strings.Repeat("x", 1<<20)
	}
	acked = map[string]int64{}
	for i := range 80 {
		key := fmt.Sprint(prefix, i%16)
		ctx, cancel := context.WithTimeout(e.ctx, 20*time.Second)
		stop := stopWhen(cancel, m.Exited())
		a, err := e.client.Put(ctx, key, value)
		stop()
		if err != nil {
			delete(acked, key) // it has the one or the other
		} else {
			acked[key] = a.Header.Revision
		}
		select {
		case <-m.Exited():
			return acked, killedItself(e.t, m)
		default:
		}
	}
	return acked, false
}

// stopWhen cancels when done is closed; the returned function ends the interest
// and cancels too.
func stopWhen(cancel context.CancelFunc, done <-chan struct{}) (stop func()) {
	over := make(chan struct{})
	go func() {
		select {
		case <-done:
			cancel()
		case <-over:
		}
	}()
	return func() {
		close(over)
		cancel()
	}
}

// logSegments are the segments of a member's log, in order.
func logSegments(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no segments in %s: %v", dir, err)
	}
	slices.Sort(names)
	return names
}

// recordsOf gives the offset of each record of a segment and of their end. The
// frame: 8 bytes little endian, the low 56 bits are the length, the low 3 bits of
// the top byte the padding.
func recordsOf(t *testing.T, segment string) (offsets []int64, end int64) {
	t.Helper()
	data, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	at := uint64(0)
	for at+8 <= uint64(len(data)) {
		frame := binary.LittleEndian.Uint64(data[at:])
		length := frame & (1<<56 - 1)
		if length == 0 || length > uint64(len(data)) {
			break
		}
		offsets = append(offsets, int64(at))
		at += 8 + length
		if frame>>63 == 1 {
			at += frame >> 56 & 7
		}
	}
	return offsets, int64(at)
}

// tearLog writes the beginning of a record at the end of a log, as a power
// failure in the middle of a write leaves it.
func tearLog(t *testing.T, dir string, r *rand.Rand) {
	t.Helper()
	segments := logSegments(t, dir)
	last := segments[len(segments)-1]
	_, end := recordsOf(t, last)
	torn := binary.LittleEndian.AppendUint64(nil, 4096)
	for range 1 + r.IntN(600) {
		torn = append(torn, byte(1+r.IntN(255)))
	}
	if err := writeAt(last, end, torn); err != nil {
		t.Fatal(err)
	}
}

func writeAt(path string, at int64, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, at)
	return errors.Join(err, f.Close())
}
