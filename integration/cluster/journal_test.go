package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// requestMax is how long a writer waits for one answer.
const requestMax = 4 * time.Second

const counters = 4

// ack is an acknowledged put.
type ack struct {
	value string
	rev   int64
}

// journal writes and remembers what was acknowledged.
type journal struct {
	e      *env
	prefix string

	mu         sync.Mutex
	acked      map[string]ack    // guarded by mu
	unknown    map[string]string // guarded by mu: asked for, no answer
	increments [counters]struct {
		acked, unknown int
		values         map[int]int64 // acknowledged value -> revision
	} // guarded by mu
	staleReads []string // guarded by mu
	lost       int      // guarded by mu; found by check

	stop   context.CancelFunc
	done   sync.WaitGroup
	writes atomic.Int64
}

// load starts writers that go on until finish. Half of the writers' writes are
// puts of new keys; then each reads back what it was acknowledged; the rest
// increments shared counters by compare and put.
func (e *env) load(r *rand.Rand, prefix string, writers, valueBytes int) *journal {
	e.t.Helper()
	ctx, cancel := context.WithCancel(e.ctx)
	j := &journal{e: e, prefix: prefix, stop: cancel, acked: map[string]ack{}, unknown: map[string]string{}}
	for i := range j.increments {
		j.increments[i].values = map[int]int64{}
	}
	for i := range writers {
		own := rand.New(rand.NewPCG(r.Uint64(), uint64(i)))
		j.done.Go(func() { j.write(ctx, own, i, valueBytes) })
	}
	e.t.Cleanup(func() {
		cancel()
		j.done.Wait()
	})
	return j
}

func (j *journal) write(ctx context.Context, r *rand.Rand, writer, valueBytes int) {
	for n := 0; ctx.Err() == nil; n++ {
		switch r.IntN(4) {
		case 0:
			j.increment(ctx, r.IntN(counters))
		default:
			key := fmt.Sprintf("%skey/%02d/%06d", j.prefix, writer, n)
			value := strconv.FormatUint(r.Uint64(), 36)
			value += strings.Repeat("x", max(0, valueBytes-len(value)))
			if j.put(ctx, key, value) && r.IntN(4) == 0 {
				j.readBack(ctx, key, value)
			}
		}
	}
}

func (j *journal) put(ctx context.Context, key, value string) bool {
	call, cancel := context.WithTimeout(ctx, requestMax)
	defer cancel()
	a, err := j.e.client.Put(call, key, value)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		j.unknown[key] = value
		return false
	}
	j.writes.Add(1)
	j.acked[key] = ack{value, a.Header.Revision}
	return true
}

// readBack is the check of linearizable reads: whoever serves it must have what
// was acknowledged before it was asked.
func (j *journal) readBack(ctx context.Context, key, value string) {
	call, cancel := context.WithTimeout(ctx, requestMax)
	defer cancel()
	a, err := j.e.client.Get(call, key)
	if err != nil {
		return
	}
	if len(a.Kvs) != 1 || string(a.Kvs[0].Value) != value {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.staleReads = append(j.staleReads, fmt.Sprintf("%s was acknowledged, but a later read gave %d keys at revision %d of member %x",
			key, len(a.Kvs), a.Header.Revision, a.Header.MemberId))
	}
}

func (j *journal) counter(i int) string { return fmt.Sprintf("%scounter/%d", j.prefix, i) }

// increment adds one to a counter, unless another writer is faster.
func (j *journal) increment(ctx context.Context, i int) {
	call, cancel := context.WithTimeout(ctx, requestMax)
	defer cancel()
	old, err := j.e.client.Get(call, j.counter(i))
	if err != nil {
		return
	}
	value, rev := counterOf(old.Kvs)
	a, err := j.e.client.Txn(call, client.Txn{
		If:   client1(client.Modified(j.counter(i), client.Equal, rev)),
		Then: client.Ops(client.PutRequest(j.counter(i), strconv.Itoa(value+1))),
	})
	j.mu.Lock()
	defer j.mu.Unlock()
	c := &j.increments[i]
	switch {
	case err != nil:
		c.unknown++
	case a.Succeeded:
		j.writes.Add(1)
		c.acked++
		if other, twice := c.values[value+1]; twice {
			j.staleReads = append(j.staleReads, fmt.Sprintf("counter %d was set to %d twice, at revisions %d and %d", i, value+1, other, a.Header.Revision))
		}
		c.values[value+1] = a.Header.Revision
	}
}

func counterOf(kvs []*mvccpb.KeyValue) (value int, rev int64) {
	if len(kvs) == 0 {
		return 0, 0
	}
	value, _ = strconv.Atoi(string(kvs[0].Value))
	return value, kvs[0].ModRevision
}

func client1[T any](one T) []T { return []T{one} }

// progress waits until n more writes have been acknowledged.
func (j *journal) progress(n int64) {
	j.e.t.Helper()
	goal := j.writes.Load() + n
	until(j.e.t, fmt.Sprintf("%d more writes are acknowledged", n), waitMax, func() error {
		if w := j.writes.Load(); w < goal {
			return fmt.Errorf("%d of them", n-(goal-w))
		}
		return nil
	})
}

// finish ends the load and checks that everything acknowledged is there, with
// its value and its revision, on all members.
func (j *journal) finish() {
	j.e.t.Helper()
	j.stop()
	j.done.Wait()
	j.check()
}

func (j *journal) check() {
	j.e.t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	found, err := j.readAll()
	if err != nil {
		j.e.t.Fatal(err)
	}
	lost := 0
	for key, a := range j.acked {
		kv := found[key]
		if kv == nil || string(kv.Value) != a.value || kv.ModRevision != a.rev || kv.Version != 1 {
			lost++
			if lost <= 5 {
				j.e.t.Errorf("%s was acknowledged at revision %d; now it is %v", key, a.rev, describe(kv))
			}
		}
	}
	for key, value := range j.unknown {
		if kv := found[key]; kv != nil && (string(kv.Value) != value || kv.Version != 1) {
			j.e.t.Errorf("%s was asked for once; now it is %v", key, describe(kv))
		}
	}
	for i := range j.increments {
		j.checkCounter(i, found[j.counter(i)])
	}
	for _, s := range j.staleReads {
		j.e.t.Error(s)
	}
	j.lost = lost
	j.e.t.Logf("%d puts acknowledged, %d without an answer, %d lost", len(j.acked), len(j.unknown), lost)
	j.e.checkEqual()
}

// tally is what became of the writes of a load.
type tally struct{ acked, unknown, lost int }

func (t *tally) add(o tally) {
	t.acked += o.acked
	t.unknown += o.unknown
	t.lost += o.lost
}

// String is for test logs.
func (t tally) String() string {
	return fmt.Sprintf("%d writes acknowledged, %d without an answer, %d lost", t.acked, t.unknown, t.lost)
}

// tally counts the writes, increments too. It may be called after check.
func (j *journal) tally() tally {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := tally{acked: len(j.acked), unknown: len(j.unknown), lost: j.lost}
	for i := range j.increments {
		all.acked += j.increments[i].acked
		all.unknown += j.increments[i].unknown
	}
	return all
}

func describe(kv *mvccpb.KeyValue) string {
	if kv == nil {
		return "missing"
	}
	return fmt.Sprintf("%.20q at revision %d, version %d", kv.Value, kv.ModRevision, kv.Version)
}

// checkCounter: every acknowledged increment counts; those without an answer
// may or may not.
func (j *journal) checkCounter(i int, kv *mvccpb.KeyValue) {
	j.e.t.Helper()
	c := &j.increments[i]
	value := 0
	if kv != nil {
		value, _ = counterOf([]*mvccpb.KeyValue{kv})
		if int64(value) != kv.Version {
			j.e.t.Errorf("counter %d is %d but was written %d times", i, value, kv.Version)
		}
	}
	if value < c.acked || value > c.acked+c.unknown {
		j.e.t.Errorf("counter %d is %d after %d acknowledged increments and %d without an answer", i, value, c.acked, c.unknown)
	}
	last := int64(0)
	values := make([]int, 0, len(c.values))
	for v := range c.values {
		values = append(values, v)
	}
	slices.Sort(values)
	for _, v := range values {
		if c.values[v] <= last {
			j.e.t.Errorf("counter %d became %d at revision %d, before a smaller value at %d", i, v, c.values[v], last)
		}
		last = c.values[v]
	}
}

// readAll reads the keys of the journal in pages at one revision.
func (j *journal) readAll() (map[string]*mvccpb.KeyValue, error) {
	const page = 2000
	found := map[string]*mvccpb.KeyValue{}
	from, rev, deadline := j.prefix, int64(0), time.Now().Add(waitMax)
	end := string(client.PrefixEnd([]byte(j.prefix)))
	for {
		ctx, cancel := j.e.brief(10 * time.Second)
		a, err := j.e.client.Get(ctx, from, client.End(end), client.Limit(page), client.Revision(rev))
		cancel()
		switch {
		case errors.Is(err, client.ErrCompacted) && time.Now().Before(deadline):
			found, from, rev = map[string]*mvccpb.KeyValue{}, j.prefix, 0
			continue
		case err != nil && time.Now().Before(deadline):
			continue
		case err != nil:
			return nil, fmt.Errorf("read back the journal: %w", err)
		}
		if rev == 0 {
			rev = a.Header.Revision
		}
		for _, kv := range a.Kvs {
			found[string(kv.Key)] = kv
			from = string(kv.Key) + "\x00"
		}
		if !a.More {
			return found, nil
		}
	}
}
