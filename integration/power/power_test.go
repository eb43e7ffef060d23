package power

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/internal/process"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// waitMax bounds every wait.
const waitMax = 60 * time.Second

// programs are what the tests run. Set by TestMain.
var programs struct{ dir, kvorum, kvctl string }

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "kvorum-power")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	out, err := exec.Command("go", "build", "-o", dir, "github.com/kvorum/kvorum/cmd/...").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	programs.dir, programs.kvorum, programs.kvctl = dir, filepath.Join(dir, "kvorum"), filepath.Join(dir, "kvctl")
	return m.Run()
}

func long() bool { return os.Getenv("KVORUM_LONG") != "" }

func newRand(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano()) % 1e9
	if text := os.Getenv("KVORUM_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("KVORUM_SEED: %v", err)
		}
	}
	t.Logf("seed %d; replay its choices with: KVORUM_SEED=%d go test -count=1 -run '^%s$' ./integration/power", seed, seed, t.Name())
	return rand.New(rand.NewPCG(seed, 6))
}

// put is a write that was acknowledged.
type put struct {
	value string
	rev   int64
	at    float64 // seconds since 1970
}

// ledger is what was asked for and what was acknowledged.
type ledger struct {
	peerURL string // of the member that wrote, when it was alone
	mu      sync.Mutex
	acked   map[string]put    // guarded by mu
	asked   map[string]string // guarded by mu
}

func newLedger() *ledger { return &ledger{acked: map[string]put{}, asked: map[string]string{}} }

// write puts n new keys by several writers, until ctx ends.
func (l *ledger) write(ctx context.Context, c *client.Client, prefix string, n, valueBytes int) {
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range n / 4 {
				key := fmt.Sprintf("%s/%d/%05d", prefix, w, i)
				value := key + strings.Repeat("v", valueBytes)
				l.mu.Lock()
				l.asked[key] = value
				l.mu.Unlock()
				a, err := c.Put(ctx, key, value)
				if err != nil {
					continue // it may be there or not
				}
				l.mu.Lock()
				l.acked[key] = put{value, a.Header.Revision, float64(time.Now().UnixMicro()) / 1e6}
				l.mu.Unlock()
			}
		})
	}
	writers.Wait()
}

// recording is a folder and the trace of a program that changes it.
type recording struct {
	t           *testing.T
	root, trace string
	disk        *Disk // as it was before
	ledger      *ledger
}

// record begins with what is in root.
func record(t *testing.T, root string) *recording {
	t.Helper()
	disk, err := NewDisk(root)
	if err != nil {
		t.Fatal(err)
	}
	return &recording{t: t, root: root, trace: filepath.Join(t.TempDir(), "trace"), disk: disk, ledger: newLedger()}
}

// under makes a member run under strace, once.
func (rec *recording) under(m *process.Member) {
	rec.t.Helper()
	program, args, err := Command(rec.trace)
	if err != nil {
		rec.t.Skip(err)
	}
	m.Binary, m.Args = program, append(append(args, m.Binary), m.Args...)
}

// events waits for the end of the trace.
func (rec *recording) events() []event {
	rec.t.Helper()
	deadline := time.NewTimer(waitMax)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for size := int64(-1); ; {
		info, err := os.Stat(rec.trace)
		if err == nil && info.Size() == size && ended(rec.trace, size) {
			break
		}
		if err == nil {
			size = info.Size()
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			rec.t.Fatal("the trace does not end")
		}
	}
	f, err := os.Open(rec.trace)
	if err != nil {
		rec.t.Fatal(err)
	}
	defer f.Close()
	events, err := Parse(f, rec.root)
	if err != nil {
		rec.t.Fatal(err)
	}
	return events
}

// ended reports whether the last line says that the process is gone.
func ended(path string, size int64) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	tail := make([]byte, min(size, 200))
	_, err = f.ReadAt(tail, size-int64(len(tail)))
	return err == nil && strings.HasSuffix(string(tail), " +++\n")
}

// crash is a moment and what is lost at it.
type crash struct {
	after int // event
	loss  Loss
}

// moments chooses from a trace: the last event, all that rename or remove and
// what surrounds them, and some of the rest.
func moments(events []event, n int, r *rand.Rand) []crash {
	chosen := []crash{{len(events) - 1, LoseAll}, {len(events) - 1, LoseSome}}
	var names, rest []crash
	for i, e := range events {
		loss := Loss(r.IntN(2))
		switch {
		case e.call.kind == opRename, e.call.kind == opMkdir, e.call.kind == opSync && i > 0 && events[i-1].call.kind == opRename:
			names = append(names, crash{i, loss})
		case e.call.kind != opOpen:
			rest = append(rest, crash{i, loss})
		}
	}
	for _, list := range [][]crash{names, rest} {
		r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		chosen = append(chosen, list[:min(len(list), n/2)]...)
	}
	return chosen
}

// replay makes images at moments and gives each to check, with the time of the
// moment.
func (rec *recording) replay(events []event, at []crash, r *rand.Rand, check func(dir, what string, at float64)) {
	rec.t.Helper()
	for i, e := range events {
		if err := rec.disk.Do(e); err != nil {
			rec.t.Fatal(err)
		}
		for _, c := range at {
			if c.after != i {
				continue
			}
			dir, err := os.MkdirTemp(programs.dir, "image")
			if err != nil {
				rec.t.Fatal(err)
			}
			if err := rec.disk.Image(dir, c.loss, r); err != nil {
				rec.t.Fatal(err)
			}
			check(dir, fmt.Sprintf("event %d of %d (%s), %s", i, len(events), e, c.loss), e.at)
			if err := os.RemoveAll(dir); err != nil {
				rec.t.Fatal(err)
			}
		}
	}
}

// String names what happened, for the reader of a failure.
func (e event) String() string {
	what := [...]string{"open", "create", "mkdir", "write", "truncate", "allocate", "sync", "rename", "remove"}[e.call.kind]
	when := "begins"
	if e.end {
		when = "ended"
	}
	return fmt.Sprintf("%s of %s %s", what, filepath.Base(e.call.path), when)
}

// problem starts a member on an image and says what is wrong with what it holds.
// Everything acknowledged before a moment must be there; with at 0, everything
// up to the revision that it has.
func (l *ledger) problem(ctx context.Context, dir string, at float64, args ...string) error {
	c, err := process.Start(process.Options{
		Binary: programs.kvorum, Size: 1, Dir: dir, Args: args,
		Prepare: func(m *process.Member, _ string) error {
			if l.peerURL != "" { // it is the same member, wherever it listens
				m.Args = append(m.Args, "--initial-cluster", "m1="+l.peerURL, "--initial-advertise-peer-urls", l.peerURL)
			}
			return nil
		},
	})
	if err != nil {
		return fmt.Errorf("it does not start: %w", err)
	}
	defer c.Stop()
	found, rev, err := readAll(ctx, c.Endpoints()...)
	if err != nil {
		return err
	}
	var all []error
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, p := range l.acked {
		if at > 0 && p.at >= at || at == 0 && p.rev > rev {
			continue
		}
		if kv := found[key]; kv == nil || string(kv.Value) != p.value || kv.ModRevision != p.rev {
			all = append(all, fmt.Errorf("%s was acknowledged at revision %d and is %v", key, p.rev, kv.GetModRevision()))
		}
	}
	for key, kv := range found {
		if l.asked[key] != string(kv.Value) {
			all = append(all, fmt.Errorf("%s has a value that nobody wrote", key))
		}
	}
	if len(all) > 3 {
		all = append(all[:3], fmt.Errorf("and %d more", len(all)-3))
	}
	return errors.Join(all...)
}

func readAll(ctx context.Context, endpoints ...string) (found map[string]*mvccpb.KeyValue, rev int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, waitMax)
	defer cancel()
	c, err := client.New(client.Config{Endpoints: endpoints})
	if err != nil {
		return nil, 0, err
	}
	defer c.Close()
	a, err := c.Get(ctx, "k", client.Prefix())
	if err != nil {
		return nil, 0, fmt.Errorf("read all keys: %w", err)
	}
	found = map[string]*mvccpb.KeyValue{}
	for _, kv := range a.Kvs {
		found[string(kv.Key)] = kv
	}
	return found, a.Header.Revision, nil
}

// startRecorded starts a single member under strace.
func startRecorded(t *testing.T, args ...string) (*recording, *process.Cluster, *client.Client) {
	t.Helper()
	rec := record(t, t.TempDir())
	c, err := process.Start(process.Options{
		Binary: programs.kvorum, Size: 1, Dir: rec.root, Args: args,
		Prepare: func(m *process.Member, _ string) error { rec.under(m); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	rec.ledger.peerURL = c.Members[0].PeerURL
	return rec, c, connect(t, c)
}

func connect(t *testing.T, c *process.Cluster) *client.Client {
	t.Helper()
	cl, err := client.New(client.Config{Endpoints: c.Endpoints()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Close() })
	return cl
}

// If this fails, a power failure loses what was acknowledged, or leaves a member
// that cannot start.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	r := newRand(t)
	rec, c, cl := startRecorded(t, "--snapshot-count", "50")
	count, valueBytes, images := 240, 100, 20
	if long() {
		count, valueBytes, images = 800, 200_000, 400 // through two segments of the log
	}
	done := make(chan struct{})
	go func() { defer close(done); rec.ledger.write(t.Context(), cl, "k", count, valueBytes) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
			disturb(t, c, cl)
		}
	}
	c.Stop()
	events := rec.events()
	checked := 0
	rec.replay(events, moments(events, images, r), r, func(dir, what string, at float64) {
		checked++
		if err := rec.ledger.problem(t.Context(), dir, at); err != nil {
			t.Errorf("power off at %s: %v", what, err)
		}
	})
	t.Logf("%d acknowledged writes, %d events, %d images", len(rec.ledger.acked), len(events), checked)
	if checked < 10 || len(rec.ledger.acked) < count {
		t.Errorf("only %d images of %d writes were checked", checked, len(rec.ledger.acked))
	}
}

// disturb compacts and defragments, so that the database is replaced and pages
// of it are used again.
func disturb(t *testing.T, c *process.Cluster, cl *client.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitMax)
	defer cancel()
	a, err := cl.Get(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Compact(ctx, a.Header.Revision, true); err != nil && !strings.Contains(err.Error(), "compacted") {
		t.Fatal(err)
	}
	if err := cl.Defragment(ctx, c.Members[0].Endpoint()); err != nil {
		t.Fatal(err)
	}
}

// If this fails, the check above proves nothing: a server that does not sync
// must be caught.
func TestPowerLossIsNoticed(t *testing.T) {
	t.Parallel()
	r := newRand(t)
	rec, c, cl := startRecorded(t, "--unsafe-no-fsync")
	rec.ledger.write(t.Context(), cl, "k", 40, 10)
	c.Stop()
	events := rec.events()
	var found error
	rec.replay(events, []crash{{len(events) - 1, LoseAll}}, r, func(dir, _ string, at float64) {
		found = rec.ledger.problem(t.Context(), dir, at)
	})
	if found == nil {
		t.Error("a server without fsync lost nothing")
	}
	t.Log(found)
}

// If this fails, a power failure in the middle of catching up leaves a member
// with a database that does not fit its log.
func TestPowerLossWhileInstalling(t *testing.T) {
	t.Parallel()
	r := newRand(t)
	root := t.TempDir()
	smallLog := []string{"--snapshot-count", "50", "--snapshot-catchup-entries", "20"}
	c, err := process.Start(process.Options{
		Binary: programs.kvorum, Size: 3, Args: smallLog,
		MemberDir: func(name string) string { return filepath.Join(root, name, "m1.etcd") }, // under which it starts again alone
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	cl := connect(t, c)
	l := newLedger()
	l.write(t.Context(), cl, "k/a", 100, 50)
	m := follower(t, c, cl)
	m.Kill()
	l.write(t.Context(), cl, "k/b", 400, 50)
	rec := record(t, filepath.Dir(m.Dir))
	rec.under(m)
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	l.write(t.Context(), cl, "k/c", 100, 50)
	waitHas(t, m, len(l.acked))
	m.Kill()
	c.Stop()
	events := rec.events()
	images := 16
	if long() {
		images = 200
	}
	checked := 0
	rec.replay(events, moments(events, images, r), r, func(dir, what string, _ float64) {
		checked++
		if err := l.problem(t.Context(), dir, 0, "--force-new-cluster"); err != nil {
			t.Errorf("power off at %s: %v", what, err)
		}
	})
	t.Logf("%d events, %d images", len(events), checked)
	if !slices.ContainsFunc(events, func(e event) bool { return strings.HasSuffix(e.call.to, ".snap.db") }) {
		t.Error("the member received no database")
	}
}

// follower is a member that does not lead.
func follower(t *testing.T, c *process.Cluster, cl *client.Client) *process.Member {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitMax)
	defer cancel()
	for _, m := range c.Members {
		s, err := cl.Status(ctx, m.Endpoint())
		if err != nil {
			t.Fatal(err)
		}
		if s.Leader != s.Header.MemberId {
			return m
		}
	}
	t.Fatal("every member leads")
	return nil
}

// waitHas waits until a member itself has so many keys.
func waitHas(t *testing.T, m *process.Member, n int) {
	t.Helper()
	c, err := client.New(client.Config{Endpoints: []string{m.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), waitMax)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		a, err := c.Get(ctx, "k", client.Prefix(), client.CountOnly(), client.Serializable())
		if err == nil && a.Count >= int64(n) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s has %d keys of %d: %v", m.Name, a.GetCount(), n, err)
		}
	}
}

// If this fails, a restored data directory is gone or damaged after a power
// failure, though the command said that it was done.
func TestPowerLossAfterRestore(t *testing.T) {
	t.Parallel()
	r := newRand(t)
	c, err := process.Start(process.Options{Binary: programs.kvorum, Size: 1, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	l := newLedger()
	l.write(t.Context(), connect(t, c), "k", 100, 50)
	file := filepath.Join(t.TempDir(), "snapshot")
	kvctl(t, programs.kvctl, "--endpoints", c.Endpoints()[0], "snapshot", "save", file)
	c.Stop()
	rec := record(t, t.TempDir())
	program, args, err := Command(rec.trace)
	if err != nil {
		t.Skip(err)
	}
	kvctl(t, program, append(args, programs.kvctl, "snapshot", "restore", file, "--name", "m1",
		"--initial-cluster", "m1=http://127.0.0.1:1", "--initial-advertise-peer-urls", "http://127.0.0.1:1",
		"--data-dir", filepath.Join(rec.root, "m1.etcd"))...)
	events := rec.events()
	rec.replay(events, []crash{{len(events) - 1, LoseAll}, {len(events) - 1, LoseSome}}, r, func(dir, what string, _ float64) {
		if err := l.problem(t.Context(), dir, float64(time.Now().Unix()+1)); err != nil {
			t.Errorf("power off at %s: %v", what, err)
		}
	})
}

func kvctl(t *testing.T, program string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitMax)
	defer cancel()
	if out, err := exec.CommandContext(ctx, program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
}
