package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/client"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// kubernetesName is what -loads calls the mix of requests that Kubernetes makes.
const kubernetesName = "kubernetes"

// The mix: each worker goes through a cycle of requests, so that every system answers the same ones, whatever its speed.
// An update reads an object and writes it in a transaction that compares its modification revision, as the API server
// does; it counts as two requests.
const (
	kubernetesWorkers  = 16
	kubernetesWatchers = 50  // each on the objects of one namespace
	kubernetesPage     = 500 // keys of a list; the next page goes on from its last key at its revision
	kubernetesCycle    = 20  // of a cycle: one page of a list…
	kubernetesUpdates  = 6   // …updates, and gets for the rest
)

// mixed is what one round of the mix gave.
type mixed struct {
	throughput, p50, p99, longest float64 // requests per second, ms, ms, ms
	longestOther                  float64 // ms: of the requests that are not lists
	cpu, memory                   float64 // µs per request, MiB
}

func (m mixed) values() []float64 {
	return []float64{m.throughput, m.p50, m.p99, m.longest, m.longestOther, m.cpu, m.memory}
}

func (mixed) columns() string {
	return throughputColumn + " | p50 ms | p99 ms | longest ms | longest but for lists ms | server CPU µs/op | RSS MiB"
}

// kubernetes runs the rounds of the mix, the systems in turn.
func (b *benchmark) kubernetes(ctx context.Context, nodes int, t *table) (err error) {
	systems, err := b.start(nodes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopAll(systems)) }()
	for _, s := range systems {
		r := &calmRun{settings: b.settings, system: s}
		if err := r.load(ctx, registry, b.settings.keys, 1024); err != nil {
			return fmt.Errorf("%s: fill: %w", s.name, err)
		}
		if err := b.awaitCalm(ctx, s.cluster); err != nil {
			return err
		}
	}
	results := make([][]mixed, len(systems))
	for round := range b.settings.rounds {
		for turn := range systems {
			i := (turn + round) % len(systems)
			m, err := b.mix(ctx, systems[i])
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", systems[i].name, round+1, err)
			}
			results[i] = append(results[i], m)
		}
	}
	if err := t.head("load", mixed{}); err != nil {
		return err
	}
	return addRows(t, fmt.Sprintf("like Kubernetes: %d objects of 1 KiB, %d workers, %d watchers", b.settings.keys, kubernetesWorkers, kubernetesWatchers), results)
}

// registry is the prefix of the objects; the digits after it begin with what stands for a namespace.
const registry = "registry/"

// mix is one round.
func (b *benchmark) mix(ctx context.Context, s *system) (mixed, error) {
	k := &kubernetes{keys: b.settings.keys}
	watching, stop := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	defer func() { stop(); watchers.Wait() }()
	for i := range kubernetesWorkers {
		c, err := client.New(client.Config{Endpoints: s.cluster.Endpoints()})
		if err != nil {
			return mixed{}, err
		}
		defer func() { stop(); _ = c.Close() }() // nothing depends on how a connection of ours ends
		k.workers = append(k.workers, &kubernetesWorker{kubernetes: k, client: c, random: rand.New(rand.NewPCG(1, uint64(i)))})
	}
	for i := range kubernetesWatchers {
		w := k.workers[i%len(k.workers)].client.Watch(watching, k.namespace(i), client.Prefix(), client.CreatedNotify())
		if _, err := w.Next(); err != nil {
			return mixed{}, err
		}
		watchers.Go(func() { k.follow(w) })
	}
	before, err := cpu(s.cluster)
	if err != nil {
		return mixed{}, err
	}
	if err := k.run(ctx, b.settings.duration); err != nil {
		return mixed{}, err
	}
	if err := pause(ctx, b.settings.settle); err != nil {
		return mixed{}, err
	}
	after, err := cpu(s.cluster)
	if err != nil {
		return mixed{}, err
	}
	rss, err := memory(s.cluster)
	if err != nil {
		return mixed{}, err
	}
	m := k.sum(b.settings.duration)
	m.cpu, m.memory = float64((after-before).Microseconds())/(m.throughput*b.settings.duration.Seconds()), rss/(1<<20)
	return m, nil
}

// kubernetes is one round of the mix.
type kubernetes struct {
	keys    int64
	workers []*kubernetesWorker
	events  atomic.Int64
}

// key is object number i, as bench.Options.Fill has written it.
func (k *kubernetes) key(i int64) string { return fmt.Sprintf("%s%015d", registry, i) }

// namespace is the prefix of one of the parts that watchers share the objects in.
func (k *kubernetes) namespace(i int) string {
	part := max(1, k.keys/kubernetesWatchers)
	whole := k.key(int64(i) * part)
	digits := len(fmt.Sprint(part)) - 1
	return whole[:len(whole)-digits]
}

func (k *kubernetes) follow(w *client.Watcher) {
	for {
		answer, err := w.Next()
		if err != nil {
			return
		}
		k.events.Add(int64(len(answer.Events)))
	}
}

func (k *kubernetes) run(ctx context.Context, d time.Duration) error {
	until := time.Now().Add(d)
	failures := make([]error, len(k.workers))
	var group sync.WaitGroup
	for i, w := range k.workers {
		group.Go(func() { failures[i] = w.run(ctx, until) })
	}
	group.Wait()
	return errors.Join(failures...)
}

// sum is what the workers saw.
func (k *kubernetes) sum(d time.Duration) mixed {
	var all []time.Duration
	var m mixed
	for _, w := range k.workers {
		all = append(append(all, w.lists...), w.others...)
		if len(w.others) > 0 {
			m.longestOther = max(m.longestOther, milliseconds(slices.Max(w.others)))
		}
	}
	slices.SortFunc(all, cmp.Compare[time.Duration])
	m.throughput = float64(len(all)) / d.Seconds()
	if n := len(all); n > 0 {
		m.p50, m.p99, m.longest = milliseconds(all[n/2]), milliseconds(all[n*99/100]), milliseconds(all[n-1])
	}
	return m
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// kubernetesWorker makes requests one after the other. One goroutine.
type kubernetesWorker struct {
	*kubernetes
	client        *client.Client
	random        *rand.Rand
	from          string // where the next page begins; "" is the beginning
	at            int64  // the revision of the list
	lists, others []time.Duration
}

func (w *kubernetesWorker) run(ctx context.Context, until time.Time) error {
	for turn := 0; time.Now().Before(until); turn++ {
		var err error
		switch place := turn % kubernetesCycle; {
		case place == 0:
			err = w.list(ctx)
		case place <= kubernetesUpdates:
			err = w.update(ctx)
		default:
			_, err = w.get(ctx, w.key(w.random.Int64N(w.keys)))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// list reads the next page, and begins anew after the last one.
func (w *kubernetesWorker) list(ctx context.Context) error {
	r := &pb.RangeRequest{Key: []byte(w.from), RangeEnd: client.PrefixEnd([]byte(registry)), Limit: kubernetesPage, Revision: w.at}
	if w.from == "" {
		r.Key = []byte(registry)
	}
	began := time.Now()
	answer, err := w.client.KV.Range(ctx, r)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	w.lists = append(w.lists, time.Since(began))
	if !answer.More {
		w.from, w.at = "", 0
		return nil
	}
	w.from = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
	if w.at == 0 {
		w.at = answer.Header.Revision // of the first page
	}
	return nil
}

func (w *kubernetesWorker) get(ctx context.Context, key string) (*pb.RangeResponse, error) {
	began := time.Now()
	answer, err := w.client.Get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	w.others = append(w.others, time.Since(began))
	if len(answer.Kvs) == 0 {
		return nil, fmt.Errorf("get: there is no object %s", key)
	}
	return answer, nil
}

// update reads an object and writes it if nobody has meanwhile; who lost finds the winner's object in the answer.
func (w *kubernetesWorker) update(ctx context.Context) error {
	key := w.key(w.random.Int64N(w.keys))
	old, err := w.get(ctx, key)
	if err != nil {
		return err
	}
	kv := old.Kvs[0]
	txn := &pb.TxnRequest{
		Compare: []*pb.Compare{{
			Key: kv.Key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: kv.ModRevision},
		}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: client.PutRequest(key, string(kv.Value))}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: client.GetRequest(key)}}},
	}
	began := time.Now()
	if _, err := w.client.KV.Txn(ctx, txn); err != nil {
		return fmt.Errorf("update: %w", err)
	}
	w.others = append(w.others, time.Since(began))
	return nil
}
