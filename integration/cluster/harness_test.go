package cluster

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/internal/process"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// waitMax bounds every wait for something that must happen. The machine may be
// busy with other tests.
const waitMax = 60 * time.Second

// electionTimeout of the members, unless a test sets another.
const electionTimeout = time.Second

// binaries are the servers that the tests run, built once. Set by TestMain.
var binaries struct {
	dir   string
	plain string
	mu    sync.Mutex
	armed string // guarded by mu: with crash points; built when needed
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "kvorum-cluster")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binaries.dir, binaries.plain = dir, os.Getenv("KVORUM_BIN")
	if binaries.plain == "" {
		if binaries.plain, err = build("kvorum"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

func build(name string, flags ...string) (string, error) {
	path := filepath.Join(binaries.dir, name)
	args := append([]string{"build", "-o", path}, flags...)
	out, err := exec.Command("go", append(args, "github.com/kvorum/kvorum/cmd/kvorum")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build kvorum: %w\n%s", err, out)
	}
	return path, nil
}

func long() bool { return os.Getenv("KVORUM_LONG") != "" }

// lasting is how long a test with a load goes on: short by default.
func lasting(short, thorough time.Duration) time.Duration {
	if long() {
		return thorough
	}
	return short
}

func rounds(short, thorough int) int {
	if long() {
		return thorough
	}
	return short
}

// newRand is the chance of a test. The seed is printed, and taken from
// KVORUM_SEED when that is set.
func newRand(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano()) % 1e9
	if text := os.Getenv("KVORUM_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("KVORUM_SEED: %v", err)
		}
	}
	t.Logf("seed %d; replay its choices with: KVORUM_SEED=%d go test -count=1 -run '^%s$' ./integration/cluster", seed, seed, t.Name())
	name := fnv.New64a()
	_, _ = name.Write([]byte(t.Name()))
	return rand.New(rand.NewPCG(seed, name.Sum64()))
}

// env is a cluster and a client of it, for one test.
type env struct {
	*process.Cluster
	t      *testing.T
	ctx    context.Context
	client *client.Client
}

// start starts a cluster that ends with the test.
func start(t *testing.T, o process.Options) *env {
	t.Helper()
	if o.Binary == "" {
		o.Binary = binaries.plain
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	c, err := process.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	e := &env{Cluster: c, t: t, ctx: t.Context()}
	t.Cleanup(func() {
		c.Stop()
		e.logOnFailure()
	})
	e.client = e.newClient(c.Endpoints()...)
	return e
}

func (e *env) logOnFailure() {
	if !e.t.Failed() {
		return
	}
	for _, m := range e.Members {
		e.t.Logf("last log lines of %s (%s):\n%s", m.Name, m.ClientURL, m.LogTail(12))
	}
}

func (e *env) newClient(endpoints ...string) *client.Client {
	e.t.Helper()
	c, err := client.New(client.Config{Endpoints: endpoints, SendBytesMax: 64 << 20})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = c.Close() })
	return c
}

// avoid makes the client of the test use all members but some, such as one that
// takes requests and never answers.
func (e *env) avoid(members ...*process.Member) {
	e.t.Helper()
	var rest []string
	for _, m := range e.Members {
		if !contains(members, m) {
			rest = append(rest, m.Endpoint())
		}
	}
	if err := e.client.SetEndpoints(rest...); err != nil {
		e.t.Fatal(err)
	}
}

// at is a client of one member.
func (e *env) at(m *process.Member) *client.Client {
	e.t.Helper()
	c, err := e.client.At(m.Endpoint())
	if err != nil {
		e.t.Fatal(err)
	}
	return c
}

// brief bounds one request.
func (e *env) brief(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(e.ctx, d)
}

// until asks again and again until ok says yes, and fails the test when that
// takes too long. ok explains why not yet.
func until(t *testing.T, what string, max time.Duration, ok func() error) {
	t.Helper()
	deadline := time.NewTimer(max)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %s: %v", what, max, err)
		}
	}
}

// pass lets time go by while a load runs.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// status of a member, or the error of one that does not answer.
func (e *env) status(m *process.Member) (*pb.StatusResponse, error) {
	ctx, cancel := e.brief(2 * time.Second)
	defer cancel()
	return e.at(m).Status(ctx, m.Endpoint())
}

func (e *env) mustStatus(m *process.Member) *pb.StatusResponse {
	e.t.Helper()
	var s *pb.StatusResponse
	until(e.t, "status of "+m.Name, waitMax, func() (err error) {
		s, err = e.status(m)
		return err
	})
	return s
}

// leader waits until a running member says that it leads, and gives it.
func (e *env) leader(except ...*process.Member) *process.Member {
	e.t.Helper()
	var found *process.Member
	until(e.t, "a leader", waitMax, func() error {
		for _, m := range e.Members {
			if m.PID() == 0 || contains(except, m) {
				continue
			}
			s, err := e.status(m)
			if err == nil && s.Leader == s.Header.MemberId {
				found = m
				return nil
			}
		}
		return fmt.Errorf("nobody says that it leads")
	})
	return found
}

func contains(list []*process.Member, m *process.Member) bool {
	for _, other := range list {
		if other == m {
			return true
		}
	}
	return false
}

// followers are the running members besides the leader.
func (e *env) followers() (leader *process.Member, rest []*process.Member) {
	e.t.Helper()
	leader = e.leader()
	for _, m := range e.Members {
		if m != leader && m.PID() != 0 {
			rest = append(rest, m)
		}
	}
	return leader, rest
}

func (e *env) mustPut(key, value string) int64 {
	e.t.Helper()
	ctx, cancel := e.brief(waitMax)
	defer cancel()
	r, err := e.client.Put(ctx, key, value)
	if err != nil {
		e.t.Fatalf("put %s: %v", key, err)
	}
	return r.Header.Revision
}

// serves waits until the cluster takes a write.
func (e *env) serves(c *client.Client) {
	e.t.Helper()
	until(e.t, "the cluster takes a write", waitMax, func() error {
		ctx, cancel := e.brief(3 * time.Second)
		defer cancel()
		_, err := c.Put(ctx, "serves", "yes")
		return err
	})
}

// checkEqual waits until all running members have applied a common revision and
// compares what they hold there.
func (e *env) checkEqual() {
	e.t.Helper()
	var rev int64
	until(e.t, "a linearizable read", waitMax, func() error {
		ctx, cancel := e.brief(3 * time.Second)
		defer cancel()
		r, err := e.client.Get(ctx, "any")
		if err == nil {
			rev = r.Header.Revision
		}
		return err
	})
	var first *pb.HashKVResponse
	for _, m := range e.Members {
		if m.PID() == 0 {
			continue
		}
		var h *pb.HashKVResponse
		until(e.t, fmt.Sprintf("%s reaches revision %d", m.Name, rev), waitMax, func() (err error) {
			ctx, cancel := e.brief(5 * time.Second)
			defer cancel()
			h, err = e.at(m).HashKV(ctx, m.Endpoint(), rev)
			return err
		})
		if first == nil {
			first = h
		}
		if h.Hash != first.Hash || h.CompactRevision != first.CompactRevision {
			e.t.Errorf("at revision %d %s has hash %d (compacted %d), the first member %d (compacted %d)",
				rev, m.Name, h.Hash, h.CompactRevision, first.Hash, first.CompactRevision)
		}
	}
}

// logLine is a line of a member's log.
type logLine struct {
	At     time.Time
	Msg    string `json:"msg"`
	Leader string `json:"leader"`
	Member string `json:"member"`
	Error  string `json:"error"`
	Level  string `json:"level"`
	Term   uint64 `json:"term"`
	text   string
}

// logged gives the lines of a member's log from a line number on.
func logged(m *process.Member, from int) []logLine {
	lines, _ := m.Log(from)
	var out []logLine
	for _, text := range lines {
		l := struct {
			logLine
			Stamp string `json:"ts"`
		}{}
		if json.Unmarshal([]byte(text), &l) != nil {
			l.Msg = text
		}
		l.text = text
		l.At, _ = time.Parse("2006-01-02T15:04:05.000000Z0700", l.Stamp)
		out = append(out, l.logLine)
	}
	return out
}

// mark is the number of the next line of a member's log.
func mark(m *process.Member) int {
	_, next := m.Log(0)
	return next
}

// says reports whether the log has a line with text, from a line number on.
func says(m *process.Member, from int, text string) bool {
	lines, _ := m.Log(from)
	for _, l := range lines {
		if strings.Contains(l, text) {
			return true
		}
	}
	return false
}

// waitSays waits for a line in the log.
func (e *env) waitSays(m *process.Member, from int, text string) {
	e.t.Helper()
	until(e.t, fmt.Sprintf("%s logs %q", m.Name, text), waitMax, func() error {
		if says(m, from, text) {
			return nil
		}
		return fmt.Errorf("the log ends with:\n%s", m.LogTail(5))
	})
}

// waitExit waits until the process of a member has ended by itself.
func (e *env) waitExit(m *process.Member) {
	e.t.Helper()
	timer := time.NewTimer(waitMax)
	defer timer.Stop()
	select {
	case <-m.Exited():
	case <-timer.C:
		e.t.Fatalf("%s still runs after %s:\n%s", m.Name, waitMax, m.LogTail(10))
	}
}

func (e *env) mustStart(m *process.Member) {
	e.t.Helper()
	if err := m.Start(); err != nil {
		e.t.Fatal(err)
	}
}

func (e *env) mustStartAll() {
	e.t.Helper()
	if err := e.StartAll(); err != nil {
		e.t.Fatal(err)
	}
}

const (
	kill      = syscall.SIGKILL
	freeze    = syscall.SIGSTOP
	thaw      = syscall.SIGCONT
	terminate = syscall.SIGTERM
)
