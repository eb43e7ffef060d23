package linear

import (
	"context"
	"flag"
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
	"google.golang.org/grpc"

	"github.com/kvorum/kvorum/internal/process"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

const (
	clients    = 6
	watchersIn = 6
	settleMax  = 60 * time.Second
	searchMax  = 60 * time.Second
	linesMax   = 20 // of each kind of violation
)

// The flags of the test binary, after -args.
var (
	historiesDir = flag.String("histories", os.TempDir(), "directory for the history and the logs of a run that failed")
	figuresFile  = flag.String("figures", "", "file for the figures of all runs")
)

// plan is how long to run.
type plan struct {
	round time.Duration
	total time.Duration // 0: one round
	seed  uint64
	again string // the environment that makes the same run
}

func planned(t *testing.T) plan {
	t.Helper()
	p := plan{round: 25 * time.Second, seed: uint64(time.Now().UnixNano())}
	if os.Getenv("KVORUM_LONG") != "" {
		p.round, p.total, p.again = 90*time.Second, 6*time.Minute, "KVORUM_LONG=1 "
		if text := os.Getenv("SOAK"); text != "" {
			var err error
			if p.total, err = time.ParseDuration(text); err != nil {
				t.Fatalf("SOAK: %v", err)
			}
		}
	}
	if text := os.Getenv("KVORUM_SEED"); text != "" {
		if _, err := fmt.Sscan(text, &p.seed); err != nil {
			t.Fatalf("KVORUM_SEED: %v", err)
		}
		p.total = 0
	}
	return p
}

// members: short runs have three, long ones have three and five in turn.
func (p plan) members() int {
	if p.round > time.Minute && p.seed%2 == 1 {
		return 5
	}
	return 3
}

// A client that read back something else than what was acknowledged, or a watcher that missed a change, would act on a
// state that never was: two holders of one lock.
func TestLinearizableUnderFaults(t *testing.T) {
	p := planned(t)
	binary := kvorumBinary(t, "")
	var all Figures
	began := time.Now()
	for first := true; first || time.Since(began) < p.total; p.seed++ {
		first = false
		t.Run(fmt.Sprint(p.seed), func(t *testing.T) {
			t.Logf("seed %d; the same faults again: %sKVORUM_SEED=%d go test -count=1 -v -run TestLinearizableUnderFaults ./integration/linear", p.seed, p.again, p.seed)
			r := start(t, p.seed, p.members(), binary)
			figures := r.judge(r.record(p.round))
			all.Add(figures)
			t.Logf("%s", figures)
		})
		writeFigures(t, all)
	}
	t.Logf("all runs:\n%s", all)
}

// writeFigures saves the figures so far, for who reads them while the runs go on.
func writeFigures(t *testing.T, f Figures) {
	t.Helper()
	if *figuresFile == "" {
		return
	}
	if err := os.WriteFile(*figuresFile, []byte(f.String()), 0o644); err != nil {
		t.Error(err)
	}
}

// kvorumBinary is named by KVORUM_BIN, or built, with build tags if there are any.
func kvorumBinary(t *testing.T, tags string) string {
	t.Helper()
	if path := os.Getenv("KVORUM_BIN"); path != "" && tags == "" {
		return path
	}
	path := filepath.Join(t.TempDir(), "kvorum")
	if out, err := exec.Command("go", "build", "-tags", tags, "-o", path, "github.com/kvorum/kvorum/cmd/kvorum").CombinedOutput(); err != nil {
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
	differ   string // how the members differ at the end
}

func (r *run) rand(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(r.seed, stream)) }

func start(t *testing.T, seed uint64, members int, binary string, env ...string) *run {
	t.Helper()
	r := &run{t: t, seed: seed, work: &workload{latest: map[string]KV{}}}
	proxies, err := NewProxies(members)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxies.Close)
	r.faults = &injector{workload: r.work, seed: seed, proxies: proxies, log: t.Logf, counts: map[string]int{}}
	dir := t.TempDir()
	r.addDisk(dir, members)
	cluster, err := process.Start(process.Options{
		Binary: binary, Size: members, Dir: dir, Advertise: proxies.Front,
		Args: r.flags(), Env: env, MemberDir: r.memberDir(dir),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Stop)
	r.cluster, r.faults.cluster = cluster, cluster
	for _, m := range cluster.Members {
		r.connect(m)
	}
	r.work.recorder = NewRecorder()
	r.addWatchers()
	return r
}

// addDisk gives one member a disk that can be filled and stalled, where that is possible.
func (r *run) addDisk(dir string, members int) {
	disk, err := newDisk(dir)
	if err != nil {
		r.t.Logf("no slow, stalled and full disks here, which takes root: %v", err)
		return
	}
	r.t.Cleanup(func() {
		if err := disk.remove(); err != nil {
			r.t.Errorf("unmount %s: %v", disk.dir, err)
		}
	})
	r.faults.disk, r.faults.diskOf = disk, int(r.seed/2)%members
}

func (r *run) memberDir(dir string) func(name string) string {
	return func(name string) string {
		if f := r.faults; f.disk != nil && name == fmt.Sprintf("m%d", f.diskOf+1) {
			return filepath.Join(f.disk.dir, name)
		}
		return filepath.Join(dir, name)
	}
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
		"--watch-progress-notify-interval", pick("200ms", "10m"),
		"--strict-reconfig-check=false", // it wants five calm seconds before each change
	}
	r.t.Logf("flags %v", args)
	return args
}

// connect dials a member, for clients and for the faults, and learns its ID.
func (r *run) connect(m *process.Member) {
	r.t.Helper()
	address, err := r.faults.proxies.FrontClients(m.Name, m.Endpoint())
	if err != nil {
		r.t.Fatal(err)
	}
	e := &endpoint{conn: r.dial(address)}
	e.life.Store(1)
	r.work.endpoints = append(r.work.endpoints, e)
	control := r.dial(m.Endpoint())
	r.faults.control = append(r.faults.control, control)
	ctx, cancel := context.WithTimeout(context.Background(), settleMax)
	defer cancel()
	status, err := pb.NewMaintenanceClient(control).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		r.t.Fatalf("status of %s: %v", m.Name, err)
	}
	id := status.Header.MemberId
	r.faults.ids = append(r.faults.ids, id)
	r.faults.proxies.Name(id, m.Name)
}

func (r *run) dial(address string) *grpc.ClientConn {
	r.t.Helper()
	conn, err := dial(address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return conn
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
	for i := range lockers {
		l := &locker{client{workload: r.work, id: 50 + i, random: r.rand(uint64(50 + i))}}
		working.Go(func() { l.run(ctx) })
	}
	working.Go(func() { r.faults.compact(ctx, r.rand(2), r.watchers[0].seen.Load) })
	err := r.faults.run(ctx)
	cancel() // a cluster that is lost serves nobody any more
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
	for i := range r.work.endpoints {
		r.insist(c, i, Request{Reads: []string{"zfinal"}})
		ctx, cancel := context.WithTimeout(context.Background(), settleMax)
		h, err := pb.NewMaintenanceClient(r.faults.control[i]).HashKV(ctx, &pb.HashKVRequest{Revision: r.final.Load()}, grpc.WaitForReady(true))
		cancel()
		if err != nil {
			r.t.Fatalf("hash of member %d: %v", i, err)
		}
		hashes[fmt.Sprintf("%08x at %d, compacted %d", h.Hash, h.HashRevision, h.CompactRevision)] = true
	}
	if len(hashes) != 1 {
		r.differ = fmt.Sprintf("the members differ: %v", hashes)
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

// verdict is what the checks say, that the members differ included.
func (r *run) verdict(h History) Verdict {
	v := Judge(h, searchMax)
	if r.differ != "" {
		v.add("hashes", []string{r.differ})
	}
	return v
}

// judge fails the test for each violation and keeps what helps to understand it.
func (r *run) judge(h History) Figures {
	r.t.Helper()
	began := time.Now()
	v := r.verdict(h)
	f := FiguresOf(h)
	f.Faults, f.Snapshots, f.Violations = r.faults.counts, r.snapshotsInstalled(), len(v.Violations)
	if v.Undecided {
		f.Undecided = 1
		r.t.Logf("seed %d: the search for an order took longer than %s", r.seed, searchMax)
	}
	r.report(v.Violations)
	if len(v.Violations) > 0 {
		path := filepath.Join(r.artifacts(), "linearization.html")
		if err := porcupine.VisualizePath(v.Model, v.Order, path); err != nil {
			r.t.Errorf("visualise: %v", err)
		}
		r.keepLogs()
		r.keepHistory(h)
	}
	for _, gap := range f.Gaps {
		r.t.Logf("nobody was answered from %s to %s", seconds(gap.From), seconds(gap.To))
	}
	r.t.Logf("checked in %s", time.Since(began).Round(time.Millisecond))
	if f.Done < 100 {
		r.t.Errorf("only %d operations were answered: the run proves nothing", f.Done)
	}
	return f
}

// snapshotsInstalled is how often a member that was away too long got the whole state, as far as its log remembers.
func (r *run) snapshotsInstalled() int {
	n := 0
	for _, m := range r.cluster.Members {
		n += strings.Count(m.LogTail(1<<20), "installing snapshot from leader")
	}
	return n
}

func (r *run) report(all []Violation) {
	seen := map[string]int{}
	for _, v := range all {
		if seen[v.Check]++; seen[v.Check] <= linesMax {
			r.t.Errorf("seed %d: %s: %s", r.seed, v.Check, v.Text)
		}
	}
	for check, n := range seen {
		if n > linesMax {
			r.t.Errorf("%s: and %d more", check, n-linesMax)
		}
	}
}

// artifacts is where a failed run leaves what helps to understand it.
func (r *run) artifacts() string {
	dir := filepath.Join(*historiesDir, fmt.Sprintf("kvorum-linear-%d", r.seed))
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
	for _, l := range h.Leases {
		fmt.Fprintf(&b, "lease %x granted for %s, asked at %s, renewals %v\n", l.ID, l.TTL, seconds(l.Call), l.Renewed)
	}
	for _, hold := range h.Holds {
		fmt.Fprintf(&b, "hold %+v\n", hold)
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
