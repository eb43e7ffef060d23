package compat

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
)

// Locks, elections and transactional memory are what etcd is bought for; they must hold on a cluster with TLS and users
// too, where every request is judged.
func TestSecureConcurrency(t *testing.T) {
	eachSecure(t, func(t *testing.T, g *guarded, e *env) {
		const holders, turns = 4, 5
		var inside, total atomic.Int32
		together(holders, func(int) error {
			mutex := concurrency.NewMutex(newSession(t, e), e.key("lock"))
			for range turns {
				if err := mutex.Lock(e.ctx); err != nil {
					return err
				}
				if n := inside.Add(1); n != 1 {
					return fmt.Errorf("%d holders at once", n)
				}
				total.Add(1)
				inside.Add(-1)
				if err := mutex.Unlock(e.ctx); err != nil {
					return err
				}
			}
			return nil
		}).check(t)
		if total.Load() != holders*turns {
			t.Errorf("the lock was held %d times, want %d", total.Load(), holders*turns)
		}
		secureElection(t, e)
		e.put("from", "100")
		e.put("to", "0")
		together(3, func(i int) error {
			one := g.as(t, "alice", g.urls[i%len(g.urls)]) // one member: see TestSTM
			one.ctx, one.prefix = clientv3.WithRequireLeader(e.ctx), e.prefix
			for range 5 {
				if err := transfer(one, concurrency.SerializableSnapshot); err != nil {
					return err
				}
			}
			return nil
		}).check(t)
		if from, to := string(e.get("from").Kvs[0].Value), string(e.get("to").Kvs[0].Value); from != "85" || to != "15" {
			t.Errorf("after 15 transfers of one: %s and %s, want 85 and 15", from, to)
		}
	})
}

func secureElection(t *testing.T, e *env) {
	t.Helper()
	first, second := concurrency.NewElection(newSession(t, e), e.key("election")), concurrency.NewElection(newSession(t, e), e.key("election"))
	if err := first.Campaign(e.ctx, "one"); err != nil {
		t.Fatal(err)
	}
	won := make(chan error, 1)
	go func() { won <- second.Campaign(e.ctx, "two") }()
	if err := first.Resign(e.ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-won; err != nil {
		t.Fatal(err)
	}
	if leader, err := first.Leader(e.ctx); err != nil || string(leader.Kvs[0].Value) != "two" {
		t.Errorf("leader %v, %v", leader, err)
	}
}

// outcomes are how goroutines ended.
type outcomes []error

func (o outcomes) check(t *testing.T) {
	t.Helper()
	if err := errors.Join(o...); err != nil {
		t.Fatal(err)
	}
}

// together runs n at once and waits for all.
func together(n int, do func(i int) error) outcomes {
	all := make(outcomes, n)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { all[i] = do(i) })
	}
	group.Wait()
	return all
}

// The recipes that come with etcd's client are built of odd requests: they find what simple tests do not.
func TestSecureRecipes(t *testing.T) {
	eachSecure(t, func(t *testing.T, _ *guarded, e *env) {
		t.Run("barrier", func(t *testing.T) { recipeBarrier(t, e) })
		t.Run("double barrier", func(t *testing.T) { recipeDoubleBarrier(t, e) })
		t.Run("queue", func(t *testing.T) { recipeQueue(t, e) })
		t.Run("priority queue", func(t *testing.T) { recipePriorityQueue(t, e) })
		t.Run("rwmutex", func(t *testing.T) { recipeRWMutex(t, e) })
	})
}

func recipeBarrier(t *testing.T, e *env) {
	barrier := recipe.NewBarrier(e.Client, e.key("barrier"))
	if err := barrier.Hold(); err != nil {
		t.Fatal(err)
	}
	if err := recipe.NewBarrier(e.Client, e.key("barrier")).Hold(); !errors.Is(err, recipe.ErrKeyExists) {
		t.Errorf("a second hold: %v", err)
	}
	released := atomic.Bool{}
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			if err := recipe.NewBarrier(e.Client, e.key("barrier")).Wait(); err != nil || !released.Load() {
				t.Errorf("passed the barrier, released: %t, %v", released.Load(), err)
			}
		})
	}
	released.Store(true)
	if err := barrier.Release(); err != nil {
		t.Fatal(err)
	}
	group.Wait()
}

func recipeDoubleBarrier(t *testing.T, e *env) {
	const parties = 4
	var entered, left atomic.Int32
	together(parties, func(int) error {
		barrier := recipe.NewDoubleBarrier(newSession(t, e), e.key("double"), parties)
		entered.Add(1)
		if err := barrier.Enter(); err != nil {
			return fmt.Errorf("enter: %w", err)
		}
		if n := entered.Load(); n != parties {
			return fmt.Errorf("%d of %d were there", n, parties)
		}
		left.Add(1)
		if err := barrier.Leave(); err != nil {
			return fmt.Errorf("leave: %w", err)
		}
		if n := left.Load(); n != parties {
			return fmt.Errorf("left while %d of %d had", n, parties)
		}
		return nil
	}).check(t)
}

func recipeQueue(t *testing.T, e *env) {
	const items = 12
	queue := recipe.NewQueue(e.Client, e.key("queue"))
	for i := range items {
		if err := queue.Enqueue(strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range items {
		if got, err := queue.Dequeue(); err != nil || got != strconv.Itoa(i) {
			t.Fatalf("dequeued %q, %v, want %d", got, err, i)
		}
	}
	late := make(chan string, 1)
	go func() {
		got, err := queue.Dequeue() // empty: it waits
		late <- fmt.Sprint(got, err)
	}()
	if err := recipe.NewQueue(e.Client, e.key("queue")).Enqueue("late"); err != nil {
		t.Fatal(err)
	}
	if got := <-late; got != "late<nil>" {
		t.Errorf("dequeued %s", got)
	}
	seen := sync.Map{}
	together(2*items, func(i int) error {
		if i%2 == 0 {
			return queue.Enqueue("x" + strconv.Itoa(i))
		}
		got, err := queue.Dequeue()
		if _, twice := seen.LoadOrStore(got, true); twice {
			return fmt.Errorf("%s came out twice", got)
		}
		return err
	}).check(t)
}

func recipePriorityQueue(t *testing.T, e *env) {
	queue := recipe.NewPriorityQueue(e.Client, e.key("priority"))
	for _, p := range []uint16{5, 1, 3, 1, 4} {
		if err := queue.Enqueue(strconv.Itoa(int(p)), p); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"1", "1", "3", "4", "5"} {
		if got, err := queue.Dequeue(); err != nil || got != want {
			t.Fatalf("dequeued %q, %v, want %s", got, err, want)
		}
	}
}

func recipeRWMutex(t *testing.T, e *env) {
	const readers, writers = 3, 3
	var reading, writing atomic.Int32
	together(readers+writers, func(i int) error {
		lock := recipe.NewRWMutex(newSession(t, e), e.key("rw"))
		for range 3 {
			if i < writers {
				if err := lock.Lock(); err != nil {
					return fmt.Errorf("lock: %w", err)
				}
				if w, r := writing.Add(1), reading.Load(); w != 1 || r != 0 {
					return fmt.Errorf("%d writers and %d readers at once", w, r)
				}
				writing.Add(-1)
				if err := lock.Unlock(); err != nil {
					return fmt.Errorf("unlock: %w", err)
				}
				continue
			}
			if err := lock.RLock(); err != nil {
				return fmt.Errorf("read lock: %w", err)
			}
			if n := reading.Add(1); writing.Load() != 0 {
				return fmt.Errorf("%d readers beside a writer", n)
			}
			reading.Add(-1)
			if err := lock.RUnlock(); err != nil {
				return fmt.Errorf("read unlock: %w", err)
			}
		}
		return nil
	}).check(t)
	if err := context.Cause(e.ctx); err != nil {
		t.Error(err)
	}
}
