package cluster

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/internal/process"
)

// goodLatencyMax is what a client that does nothing wrong may wait for one put or
// one event. It is generous: the attackers run on the same processors.
const goodLatencyMax = 10 * time.Second

// attack is one way to do harm. It goes on until ctx ends, and reports what the
// server should not have done.
type attack struct {
	name      string
	args      []string // of the server
	rssMiBMax int      // the most memory that the server may have had
	prepare   func(*testing.T, *env)
	run       func(ctx context.Context, e *env) error
	thorough  time.Duration // how long the long run goes on
}

// If this fails, one client can take the memory of a member, or its attention,
// from all others.
func TestHostileClients(t *testing.T) {
	for _, a := range attacks(t) {
		t.Run(a.name, func(t *testing.T) {
			withstand(t, a)
		})
	}
}

func withstand(t *testing.T, a attack) {
	e := start(t, process.Options{Size: 1, Args: a.args})
	e.serves(e.client)
	if a.prepare != nil {
		a.prepare(t, e)
	}
	before := peakMiB(t, e.Members[0].PID())
	ctx, stop := context.WithTimeout(e.ctx, lasting(3*time.Second, max(a.thorough, 30*time.Second)))
	defer stop()
	good := newGoodClient(e)
	var working sync.WaitGroup
	working.Go(func() { good.work(ctx) })
	if err := a.run(ctx, e); err != nil {
		t.Error(err)
	}
	<-ctx.Done()
	working.Wait()
	good.judge(t)
	after := peakMiB(t, e.Members[0].PID())
	t.Logf("%d puts, longest %s; peak memory %d MiB before, %d MiB after, allowed %d", good.puts, good.longest.Round(time.Millisecond), before, after, a.rssMiBMax)
	if after > a.rssMiBMax {
		t.Errorf("the server has taken %d MiB, more than %d", after, a.rssMiBMax)
	}
	e.serves(e.newClient(e.Members[0].Endpoint()))
}

// peakMiB is the most memory that a process has had.
func peakMiB(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kib >> 10
		}
	}
	t.Fatal("no VmHWM in /proc")
	return 0
}

// goodClient puts and watches, and measures how long each takes to be seen.
type goodClient struct {
	e       *env
	puts    int
	longest time.Duration
	failed  error
}

func newGoodClient(e *env) *goodClient { return &goodClient{e: e} }

func (g *goodClient) work(ctx context.Context) {
	watching, stop := context.WithCancel(g.e.ctx)
	defer stop()
	events := g.e.client.Watch(watching, "good", client.CreatedNotify())
	if _, g.failed = events.Next(); g.failed != nil {
		return
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil && g.failed == nil {
		began := time.Now()
		g.failed = g.one(events, stop)
		g.puts++
		g.longest = max(g.longest, time.Since(began))
		<-tick.C
	}
}

// one puts and waits for the event.
func (g *goodClient) one(events *client.Watcher, stop context.CancelFunc) error {
	ctx, cancel := g.e.brief(waitMax)
	defer cancel()
	defer time.AfterFunc(waitMax, stop).Stop()
	put, err := g.e.client.Put(ctx, "good", "x")
	if err != nil {
		return fmt.Errorf("put: %w", err)
	}
	for {
		r, err := events.Next()
		if err != nil {
			return fmt.Errorf("event of revision %d: %w", put.Header.Revision, err)
		}
		for _, event := range r.Events {
			if event.Kv.ModRevision == put.Header.Revision {
				return nil
			}
		}
	}
}

func (g *goodClient) judge(t *testing.T) {
	t.Helper()
	if g.failed != nil {
		t.Errorf("the good client, after %d puts: %v", g.puts, g.failed)
	}
	if g.longest > goodLatencyMax {
		t.Errorf("a put and its event took %s, more than %s", g.longest, goodLatencyMax)
	}
}
