package linear

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/kvorum/kvorum/internal/process"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

const (
	members    = 3
	clients    = 6
	watchersIn = 6
	settleMax  = 60 * time.Second
	searchMax  = 60 * time.Second
	linesMax   = 20 // of each kind of violation
)

// A client that read back something else than what was acknowledged, or a watcher that missed a change, would act on a
// state that never was: two holders of one lock.
func TestLinearizableUnderFaults(t *testing.T) {
	duration, rounds := 25*time.Second, 1
	if os.Getenv("KVORUM_LONG") != "" {
		duration, rounds = 90*time.Second, 4
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("KVORUM_SEED"); text != "" {
		if _, err := fmt.Sscan(text, &seed); err != nil {
			t.Fatalf("KVORUM_SEED: %v", err)
		}
		rounds = 1
	}
	binary := kvorumBinary(t)
	for i := range rounds {
		round := seed + uint64(i)
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Logf("seed %d; again: KVORUM_SEED=%d KVORUM_LONG=%s go test -count=1 -v -run TestLinearizableUnderFaults ./integration/linear", round, round, os.Getenv("KVORUM_LONG"))
			r := start(t, round, binary)
			history := r.record(duration)
			r.judge(history)
		})
	}
}

// kvorumBinary is named by KVORUM_BIN, or built.
func kvorumBinary(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("KVORUM_BIN"); path != "" {
		return path
	}
	path := filepath.Join(t.TempDir(), "kvorum")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/kvorum/kvorum/cmd/kvorum").CombinedOutput(); err != nil {
		t.Fatalf("build kvorum: %v\n%s", err, out)
	}
	return path
}

// run is one cluster with all who use and abuse it.
type run struct {
	t        *testing.T
	seed     uint64
	cluster  *process.Cluster
	faults   *injector
	work     *workload
	watchers []*watcher
	final    atomic.Int64
}

func (r *run) rand(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(r.seed, stream)) }

func start(t *testing.T, seed uint64, binary string) *run {
	t.Helper()
	r := &run{t: t, seed: seed, work: &workload{latest: map[string]KV{}}}
	proxies, err := NewProxies(members)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxies.Close)
	cluster, err := process.Start(process.Options{
		Binary: binary, Size: members, Dir: t.TempDir(), Advertise: proxies.Front,
		Args: r.flags(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Stop)
	r.cluster = cluster
	r.faults = &injector{workload: r.work, random: r.rand(1), cluster: cluster, proxies: proxies, log: t.Logf}
	for _, m := range cluster.Members {
		r.connect(m)
	}
	r.work.recorder = NewRecorder()
	r.addWatchers()
	return r
}

// flags are drawn: small limits let snapshots, flushes and slices of compactions happen all the time.
func (r *run) flags() []string {
	random := r.rand(4)
	pick := func(values ...string) string { return values[random.IntN(len(values))] }
	args := []string{
		"--heartbeat-interval", "50", "--election-timeout", "500",
		"--snapshot-count", pick("10", "100", "1000"), "--snapshot-catchup-entries", pick("5", "50"),
		"--backend-batch-interval", pick("5ms", "100ms", "1s"), "--backend-batch-limit", pick("10", "10000"),
		"--pre-vote=" + pick("true", "true", "false"),
	}
	r.t.Logf("flags %v", args)
	return args
}

// connect dials a member and learns its ID.
func (r *run) connect(m *process.Member) {
	conn, err := dial(m.Endpoint())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	e := &endpoint{conn: conn}
	e.life.Store(1)
	r.work.endpoints = append(r.work.endpoints, e)
	ctx, cancel := context.WithTimeout(context.Background(), settleMax)
	defer cancel()
	status, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		r.t.Fatalf("status of %s: %v", m.Name, err)
	}
	id := status.Header.MemberId
	r.faults.ids = append(r.faults.ids, id)
	r.faults.proxies.Name(id, m.Name)
}

// addWatchers: the first two hear everything there is and make the timeline.
func (r *run) addWatchers() {
	for i := range watchersIn {
		w := &watcher{workload: r.work, id: i, random: r.rand(uint64(100 + i)), next: 1, final: &r.final}
		w.spec = Session{Whole: i < 4, Prev: i%2 == 1, NoDelete: i == 3}
		w.wander = !w.spec.Whole
		r.watchers = append(r.watchers, w)
	}
}

// record runs everything for a while, makes the cluster whole and waits until the watchers have caught up.
func (r *run) record(d time.Duration) History {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	watching, stopWatching := context.WithCancel(context.Background())
	defer stopWatching()
	var working, watchers, wanderers sync.WaitGroup
	for _, w := range r.watchers {
		group := &watchers
		if w.wander {
			group = &wanderers
		}
		group.Go(func() { w.run(watching) })
	}
	for i := range clients {
		c := &client{workload: r.work, id: i, random: r.rand(uint64(10 + i))}
		working.Go(func() { c.run(ctx) })
	}
	working.Go(func() { r.faults.compact(ctx, r.rand(2), r.watchers[0].seen.Load) })
	err := r.faults.run(ctx)
	cancel()
	working.Wait()
	if err != nil {
		r.t.Errorf("the cluster did not survive: %v", err)
		r.keepLogs()
		stopWatching()
		r.t.FailNow()
	}
	r.finish()
	r.within("the watchers hear everything", func() { watchers.Wait() })
	stopWatching()
	wanderers.Wait()
	return r.work.recorder.End(r.final.Load())
}

// finish reads everything from every member, makes the last write and compares the members' checksums.
func (r *run) finish() {
	var keys []string
	for key := range r.work.latest {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	c := &client{workload: r.work, id: 91, random: r.rand(3)}
	for i := range r.work.endpoints {
		r.insist(c, i, Request{Reads: keys})
	}
	r.final.Store(r.insist(c, 0, Request{Writes: []Write{{Key: "zfinal", Value: "final"}}}).Answer.Revision)
	hashes := map[string]bool{}
	for i, e := range r.work.endpoints {
		r.insist(c, i, Request{Reads: []string{"zfinal"}})
		ctx, cancel := context.WithTimeout(context.Background(), settleMax)
		h, err := pb.NewMaintenanceClient(e.conn).HashKV(ctx, &pb.HashKVRequest{Revision: r.final.Load()})
		cancel()
		if err != nil {
			r.t.Fatalf("hash of member %d: %v", i, err)
		}
		hashes[fmt.Sprintf("%08x at %d, compacted %d", h.Hash, h.HashRevision, h.CompactRevision)] = true
	}
	if len(hashes) != 1 {
		r.t.Errorf("the members differ: %v", hashes)
		r.keepLogs()
	}
}

// insist repeats a request until it is answered. A write keeps its value only while nobody knows whether it happened: it
// must not happen twice.
func (r *run) insist(c *client, member int, q Request) *Operation {
	r.t.Helper()
	deadline := time.Now().Add(settleMax)
	for try := 0; ; try++ {
		for i := range q.Writes {
			q.Writes = slices.Clone(q.Writes)
			q.Writes[i].Value = fmt.Sprintf("final%d", try)
		}
		o := c.do(member, q)
		if o.Outcome == Done {
			return o
		}
		if time.Now().After(deadline) {
			r.keepLogs()
			r.t.Fatalf("the cluster is whole, but member %d does not answer: %s", member, o)
		}
		wait(context.Background(), 20*time.Millisecond)
	}
}

func (r *run) within(what string, do func()) {
	r.t.Helper()
	done := make(chan struct{})
	go func() { do(); close(done) }()
	select {
	case <-done:
	case <-time.After(settleMax):
		for _, w := range r.watchers {
			r.t.Logf("watcher %d has heard up to %d of %d", w.id, w.seen.Load(), r.final.Load())
		}
		r.keepLogs()
		r.t.Fatalf("not within %s: %s", settleMax, what)
	}
}

// judge runs the three checks.
func (r *run) judge(h History) {
	r.t.Helper()
	began := time.Now()
	timeline, bad := NewTimeline(h)
	r.report("timeline", bad)
	known := timeline
	if len(bad) > 0 {
		known = nil
	}
	r.report("watches", CheckWatches(h, timeline))
	r.report("order", CheckOrder(h, timeline))
	model, result, info := CheckKeys(h, known, searchMax)
	if result != porcupine.Ok {
		path := filepath.Join(r.artifacts(), "linearization.html")
		if err := porcupine.VisualizePath(model, info, path); err != nil {
			r.t.Errorf("visualise: %v", err)
		}
		r.t.Errorf("seed %d: porcupine says %s; see %s", r.seed, result, path)
	}
	if r.t.Failed() {
		r.keepLogs()
		r.keepHistory(h)
	}
	done, refused, unknown := 0, 0, 0
	for _, o := range h.Operations {
		switch o.Outcome {
		case Done:
			done++
		case Refused:
			refused++
		case Unknown:
			unknown++
		}
	}
	r.t.Logf("%d operations answered, %d refused, %d unknown; %d revisions; %d watch sessions, %d canceled by compaction; %d snapshots installed; checked in %s",
		done, refused, unknown, h.Final, len(h.Sessions), canceled(h), r.snapshotsInstalled(), time.Since(began).Round(time.Millisecond))
	if done < 100 {
		r.t.Errorf("only %d operations were answered: the run proves nothing", done)
	}
}

// canceled is how many watchers were canceled because what they needed was compacted.
func canceled(h History) int {
	n := 0
	for _, s := range h.Sessions {
		if s.CompactRevision != 0 {
			n++
		}
	}
	return n
}

// snapshotsInstalled is how often a member that was away too long got the whole state, as far as its log remembers.
func (r *run) snapshotsInstalled() int {
	n := 0
	for _, m := range r.cluster.Members {
		n += strings.Count(m.LogTail(1<<20), "installing snapshot from leader")
	}
	return n
}

func (r *run) report(what string, bad []string) {
	for i, line := range bad {
		if i == linesMax {
			r.t.Errorf("%s: and %d more", what, len(bad)-i)
			break
		}
		r.t.Errorf("seed %d: %s: %s", r.seed, what, line)
	}
}

// artifacts is where a failed run leaves what helps to understand it: below KVORUM_ARTIFACTS, or the system's temporary
// directory.
func (r *run) artifacts() string {
	base := os.Getenv("KVORUM_ARTIFACTS")
	if base == "" {
		base = os.TempDir()
	}
	dir := filepath.Join(base, fmt.Sprintf("kvorum-linear-%d", r.seed))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	return dir
}

func (r *run) keepLogs() {
	dir := r.artifacts()
	for _, m := range r.cluster.Members {
		if err := os.WriteFile(filepath.Join(dir, m.Name+".log"), []byte(m.LogTail(1<<20)), 0o644); err != nil {
			r.t.Error(err)
		}
	}
	r.t.Logf("seed %d: logs in %s", r.seed, dir)
}

func (r *run) keepHistory(h History) {
	var b strings.Builder
	for _, o := range byReturn(h.Operations) {
		fmt.Fprintln(&b, o)
	}
	for _, s := range h.Sessions {
		fmt.Fprintf(&b, "watcher %d member %d from %d whole %v key %q compacted %d\n", s.Watcher, s.Member, s.From, s.Whole, s.Key, s.CompactRevision)
		for _, n := range s.Notices {
			fmt.Fprintf(&b, "  %s header %d progress %v %+v\n", seconds(n.At), n.Revision, n.Progress, n.Events)
		}
	}
	if err := os.WriteFile(filepath.Join(r.artifacts(), "history.txt"), []byte(b.String()), 0o644); err != nil {
		r.t.Error(err)
	}
}
