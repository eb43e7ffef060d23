package v2

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/process"
)

// answer is a keys answer or an event, or an error.
type answer struct {
	Action    string
	Node      node
	ErrorCode int
	Index     int64
}

type node struct {
	Key, Value    string
	Dir           bool
	Nodes         []node
	ModifiedIndex int64
}

// load is several clients at work on one cluster, and what they were told.
type load struct {
	t       *testing.T
	cluster *process.Cluster
	client  *http.Client
	done    atomic.Int64 // requests answered

	mu      sync.Mutex
	posted  map[string]string // guarded by mu: value -> key of acknowledged POSTs
	unsure  map[string]bool   // guarded by mu: values whose POST has no clear end
	swapped map[int]int       // guarded by mu: n -> how often the swap from n was acknowledged
	lost    int               // guarded by mu: swaps without a clear end
}

// ask sends one request to a member; ok is false if the outcome is unknown.
func (l *load) ask(ctx context.Context, member int, method, path string, form url.Values) (a answer, status int, ok bool) {
	m := l.cluster.Members[member%len(l.cluster.Members)]
	r, err := http.NewRequestWithContext(ctx, method, m.ClientURL+"/v2/keys"+path, strings.NewReader(form.Encode()))
	if err != nil {
		return a, 0, false
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := l.client.Do(r)
	if err != nil {
		return a, 0, false
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return a, resp.StatusCode, false
	}
	return a, resp.StatusCode, resp.StatusCode < http.StatusInternalServerError
}

// post makes one in-order key with a value of its own.
func (l *load) post(ctx context.Context, member int, value string) {
	a, status, ok := l.ask(ctx, member, http.MethodPost, "/queue", url.Values{"value": {value}})
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !ok:
		l.unsure[value] = true
	case status != http.StatusCreated:
		l.t.Errorf("POST of %s: %d %+v", value, status, a)
	default:
		l.posted[value] = a.Node.Key
	}
}

// swap tries to count up by one.
func (l *load) swap(ctx context.Context, member int) {
	now, _, ok := l.ask(ctx, member, http.MethodGet, "/counter?quorum=true", nil)
	if !ok || now.Node.Value == "" {
		return
	}
	n, err := strconv.Atoi(now.Node.Value)
	if err != nil {
		l.t.Errorf("counter is %q", now.Node.Value)
		return
	}
	form := url.Values{"value": {strconv.Itoa(n + 1)}, "prevValue": {now.Node.Value}}
	a, status, ok := l.ask(ctx, member, http.MethodPut, "/counter", form)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !ok:
		l.lost++
	case status == http.StatusOK:
		l.swapped[n]++
	case status != http.StatusPreconditionFailed:
		l.t.Errorf("swap from %d: %d %+v", n, status, a)
	}
}

// watcher follows all changes with long polls, each at another member, from
// where the last one ended.
func (l *load) watcher(ctx context.Context, from int64) (events []answer) {
	for next, at := from, 0; ctx.Err() == nil; at++ {
		m := l.cluster.Members[at%len(l.cluster.Members)]
		poll, cancel := context.WithTimeout(ctx, 5*time.Second)
		a, ok := l.poll(poll, m.ClientURL, next)
		cancel()
		if !ok {
			continue
		}
		events = append(events, a)
		next = a.Node.ModifiedIndex + 1
		if a.Node.Key == "/end" {
			return events
		}
	}
	return events
}

func (l *load) poll(ctx context.Context, base string, from int64) (a answer, ok bool) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/v2/keys/?wait=true&recursive=true&waitIndex=%d", base, from), nil)
	if err != nil {
		return a, false
	}
	resp, err := l.client.Do(r)
	if err != nil {
		return a, false
	}
	defer resp.Body.Close()
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) || line == "" {
		return a, false
	}
	if err := json.Unmarshal([]byte(line), &a); err != nil || a.ErrorCode != 0 {
		l.t.Errorf("event from %d: %q: %v", from, line, err)
		return a, false
	}
	return a, true
}

// leader is the number of the member that leads.
func (l *load) leader(ctx context.Context) int {
	l.t.Helper()
	for i, m := range l.cluster.Members {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, m.ClientURL+"/v2/stats/leader", nil)
		if err != nil {
			l.t.Fatal(err)
		}
		resp, err := l.client.Do(r)
		if err != nil {
			l.t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return i
		}
	}
	l.t.Fatal("nobody leads")
	return 0
}

// If this fails, the death of a leader loses jobs of a queue, runs them twice,
// or lets two clients believe that each of them has won the same swap.
func TestLeaderDiesUnderV2Writes(t *testing.T) {
	const clients, each = 8, 125
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitMax)
	defer cancel()
	l := &load{
		t: t, cluster: start(t, process.Options{Binary: kvorumBinary(t), Size: 3}), client: &http.Client{},
		posted: map[string]string{}, unsure: map[string]bool{}, swapped: map[int]int{},
	}
	first, status, ok := l.ask(ctx, 0, http.MethodPut, "/counter", url.Values{"value": {"0"}})
	if !ok {
		t.Fatalf("first write: %d %+v", status, first)
	}
	var told []answer
	var watching sync.WaitGroup
	watching.Go(func() { told = l.watcher(ctx, first.Node.ModifiedIndex+1) })
	var working sync.WaitGroup
	for c := range clients {
		working.Go(func() {
			for i := range each {
				if i%2 == 0 {
					l.swap(ctx, rand.IntN(3)) //nolint:gosec // a test
				}
				l.post(ctx, rand.IntN(3), fmt.Sprintf("job-%d-%d", c, i)) //nolint:gosec // a test
				l.done.Add(1)
			}
		})
	}
	l.killLeaderAt(ctx, clients*each/3)
	working.Wait()
	l.finish(ctx)
	watching.Wait()
	l.check(ctx, told)
}

// killLeaderAt kills the leader when so many requests were answered, and starts
// it again.
func (l *load) killLeaderAt(ctx context.Context, requests int64) {
	l.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for l.done.Load() < requests {
		select {
		case <-tick.C:
		case <-ctx.Done():
			l.t.Fatal("no progress")
		}
	}
	dead := l.cluster.Members[l.leader(ctx)]
	dead.Kill()
	l.t.Logf("killed %s after %d requests", dead.Name, l.done.Load())
	if err := dead.Start(); err != nil {
		l.t.Fatal(err)
	}
}

// finish writes the last key, which ends the watcher.
func (l *load) finish(ctx context.Context) {
	l.t.Helper()
	for try := 0; ctx.Err() == nil; try++ {
		if _, _, ok := l.ask(ctx, try, http.MethodPut, "/end", url.Values{"value": {"1"}}); ok {
			return
		}
	}
	l.t.Fatal("the cluster takes no writes any more")
}

// check holds what clients and watcher were told against the store.
func (l *load) check(ctx context.Context, told []answer) {
	l.t.Helper()
	all, status, ok := l.ask(ctx, 0, http.MethodGet, "/queue?quorum=true&sorted=true", nil)
	if !ok {
		l.t.Fatalf("read the queue: %d", status)
	}
	keyOf, stored := map[string]string{}, map[string]bool{}
	for _, n := range all.Node.Nodes {
		if other := keyOf[n.Value]; other != "" {
			l.t.Errorf("%s is stored twice: %s and %s", n.Value, other, n.Key)
		}
		keyOf[n.Value], stored[n.Key] = n.Key, true
	}
	for value, key := range l.posted {
		if keyOf[value] != key {
			l.t.Errorf("%s was acknowledged as %s and is %q", value, key, keyOf[value])
		}
	}
	for value := range keyOf {
		if l.posted[value] == "" && !l.unsure[value] {
			l.t.Errorf("%s is stored, and nobody has been told", value)
		}
	}
	l.checkCounter(ctx)
	l.checkHashes(ctx)
	checkEvents(l.t, told, stored)
	l.t.Logf("%d acknowledged, %d unsure; %d swaps, %d unsure; %d events", len(l.posted), len(l.unsure), len(l.swapped), l.lost, len(told))
	if len(l.posted) < 500 {
		l.t.Errorf("only %d of 1000 writes were acknowledged", len(l.posted))
	}
}

func (l *load) checkCounter(ctx context.Context) {
	l.t.Helper()
	now, _, ok := l.ask(ctx, 0, http.MethodGet, "/counter?quorum=true", nil)
	if !ok {
		l.t.Fatal("read the counter")
	}
	count, err := strconv.Atoi(now.Node.Value)
	if err != nil || count < len(l.swapped) || count > len(l.swapped)+l.lost {
		l.t.Errorf("the counter is %q after %d acknowledged swaps and %d unsure ones", now.Node.Value, len(l.swapped), l.lost)
	}
	for n, times := range l.swapped {
		if times > 1 || n >= count {
			l.t.Errorf("the swap from %d was acknowledged %d times; the counter is %d", n, times, count)
		}
	}
}

// checkEvents: each change once, in order, none left out.
func checkEvents(t *testing.T, told []answer, stored map[string]bool) {
	t.Helper()
	last, counter := int64(0), 0
	for _, e := range told {
		if e.Node.ModifiedIndex <= last {
			t.Errorf("event of %d after %d", e.Node.ModifiedIndex, last)
		}
		last = e.Node.ModifiedIndex
		switch {
		case e.Action == "create" && stored[e.Node.Key]:
			delete(stored, e.Node.Key)
		case e.Action == "compareAndSwap":
			counter++
			if e.Node.Value != strconv.Itoa(counter) {
				t.Errorf("the watcher was told of %s as swap number %d", e.Node.Value, counter)
			}
		case e.Node.Key != "/end":
			t.Errorf("the watcher was told of %+v, which is not there", e)
		}
	}
	if len(stored) > 0 {
		t.Errorf("the watcher was not told of %d keys", len(stored))
	}
}

// checkHashes: all members hold the same bytes.
func (l *load) checkHashes(ctx context.Context) {
	l.t.Helper()
	var all []string
	revision := ""
	for i, m := range l.cluster.Members {
		// A read through the member that waits until it has applied everything.
		now, _, ok := l.ask(ctx, i, http.MethodGet, "/end?quorum=true", nil)
		if !ok {
			l.t.Fatalf("%s does not answer", m.Name)
		}
		if revision == "" {
			revision = strconv.FormatInt(now.Node.ModifiedIndex, 10)
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, m.ClientURL+"/v3/maintenance/hashkv", strings.NewReader(`{"revision":"`+revision+`"}`))
		if err != nil {
			l.t.Fatal(err)
		}
		resp, err := l.client.Do(r)
		if err != nil {
			l.t.Fatal(err)
		}
		var hash struct{ Hash int64 }
		err = json.NewDecoder(resp.Body).Decode(&hash)
		resp.Body.Close()
		if err != nil || hash.Hash == 0 {
			l.t.Fatalf("hash of %s: %d, %v", m.Name, hash.Hash, err)
		}
		all = append(all, strconv.FormatInt(hash.Hash, 10))
	}
	if all[0] != all[1] || all[0] != all[2] {
		l.t.Errorf("hashes at revision %s differ: %v", revision, all)
	}
}

// If this fails, a client of a cluster without a leader hangs, or is told that
// its write was made or refused when nobody knows.
func TestV2WithoutALeader(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), waitMax)
	defer cancel()
	c := start(t, process.Options{Binary: kvorumBinary(t), Size: 3, Args: []string{"--heartbeat-interval", "20", "--election-timeout", "200"}})
	s := newServer(t, "kvorum", c.Members[0].ClientURL)
	s.begin()
	c.Members[1].Kill()
	c.Members[2].Kill()
	s.until("/v2/members/leader", func(r reply) bool { return r.status == http.StatusServiceUnavailable })
	if r := s.do(ask{method: "GET", path: "/v2/members/leader"}); r.body != `{"message":"During election"}` {
		t.Errorf("the leader is %s", r.body)
	}
	if r := s.do(ask{method: "GET", path: "/v2/keys/begin"}); r.status != http.StatusOK {
		t.Errorf("a read from this member: %d %s", r.status, r.body)
	}
	var asking sync.WaitGroup
	for _, a := range []ask{
		{method: "PUT", path: "/v2/keys/a", body: "value=1"},
		{method: "DELETE", path: "/v2/keys/begin"},
		{method: "GET", path: "/v2/keys/begin?quorum=true"},
	} {
		asking.Go(func() {
			want := `{"errorCode":300,"message":"Raft Internal Error","cause":"etcdserver: request timed out","index":0}` + "\n"
			if r := s.do(a); r.status != http.StatusInternalServerError || r.body != want || r.header.Get("X-Etcd-Index") != "0" {
				t.Errorf("%v: %d %s", a, r.status, r.body)
			}
		})
	}
	asking.Wait()
	if ctx.Err() != nil {
		t.Error("it took too long")
	}
}
