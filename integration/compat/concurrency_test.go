package compat

import (
	"errors"
	"strconv"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func newSession(t *testing.T, e *env, options ...concurrency.SessionOption) *concurrency.Session {
	t.Helper()
	s, err := concurrency.NewSession(e.Client, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Two holders of one lock is what locks exist to prevent.
func TestMutex(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		const holders, turns = 5, 4
		inside, total := 0, 0 // owned by the lock's holder
		var group sync.WaitGroup
		for range holders {
			mutex := concurrency.NewMutex(newSession(t, e), e.key("lock"))
			group.Go(func() {
				for range turns {
					if err := mutex.Lock(e.ctx); err != nil {
						t.Error(err)
						return
					}
					if inside++; inside != 1 {
						t.Errorf("%d holders at once", inside)
					}
					total++
					inside--
					if err := mutex.Unlock(e.ctx); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		group.Wait()
		if total != holders*turns {
			t.Errorf("the lock was held %d times, want %d", total, holders*turns)
		}
	})
}

// A lock whose holder is gone must come free, and a taken one must be refused to those who do not wait.
func TestMutexEndsWithItsSession(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		holder := newSession(t, e)
		first := concurrency.NewMutex(holder, e.key("lock"))
		if err := first.Lock(e.ctx); err != nil {
			t.Fatal(err)
		}
		second := concurrency.NewMutex(newSession(t, e), e.key("lock"))
		if err := second.TryLock(e.ctx); !errors.Is(err, concurrency.ErrLocked) {
			t.Errorf("a taken lock: %v", err)
		}
		if _, err := e.Revoke(e.ctx, holder.Lease()); err != nil {
			t.Fatal(err)
		}
		if err := second.Lock(e.ctx); err != nil {
			t.Errorf("after the holder's session ended: %v", err)
		}
		// A txn without operations would be answered from one member's own state, which may be behind.
		owned, err := e.Txn(e.ctx).If(second.IsOwner()).Then(clientv3.OpGet(second.Key())).Commit()
		if err != nil || !owned.Succeeded {
			t.Errorf("the new holder is not the owner: %v, %v", owned, err)
		}
	})
}

// An election must have one leader at a time, followers must see each in turn, and resigning must pass it on.
func TestElection(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		first := concurrency.NewElection(newSession(t, e), e.key("election"))
		second := concurrency.NewElection(newSession(t, e), e.key("election"))
		if err := first.Campaign(e.ctx, "one"); err != nil {
			t.Fatal(err)
		}
		observed := second.Observe(e.ctx)
		won := make(chan error, 1)
		go func() { won <- second.Campaign(e.ctx, "two") }()
		expect := func(want string) {
			t.Helper()
			for got := range observed {
				if string(got.Kvs[0].Value) == want {
					return
				}
			}
			t.Fatalf("never saw leader %s", want)
		}
		expect("one")
		if err := first.Proclaim(e.ctx, "uno"); err != nil {
			t.Fatal(err)
		}
		expect("uno")
		select {
		case err := <-won:
			t.Fatalf("a second leader while the first leads: %v", err)
		default:
		}
		if err := first.Resign(e.ctx); err != nil {
			t.Fatal(err)
		}
		if err := <-won; err != nil {
			t.Fatal(err)
		}
		expect("two")
		leader, err := first.Leader(e.ctx)
		if err != nil || string(leader.Kvs[0].Value) != "two" {
			t.Errorf("leader %v, %v", leader, err)
		}
		if err := first.Proclaim(e.ctx, "x"); !errors.Is(err, concurrency.ErrElectionNotLeader) {
			t.Errorf("proclaiming after resigning: %v", err)
		}
	})
}

// Transactional memory that loses an update loses money in the classic example.
func TestSTM(t *testing.T) {
	for name, isolation := range map[string]concurrency.Isolation{
		"serializable snapshot": concurrency.SerializableSnapshot, "serializable": concurrency.Serializable,
	} {
		t.Run(name, func(t *testing.T) {
			eachSize(t, func(t *testing.T, e *env) {
				const workers, transfers, start = 4, 10, 1000
				e.put("from", strconv.Itoa(start))
				e.put("to", "0")
				var group sync.WaitGroup
				for i := range workers {
					// Each worker keeps to one member: the client reads later keys from any member's own state, at the
					// revision of the first, which another member may not have reached.
					one := e.on(i)
					group.Go(func() {
						for range transfers {
							if err := transfer(one, isolation); err != nil {
								t.Error(err)
								return
							}
						}
					})
				}
				group.Wait()
				from, to := string(e.get("from").Kvs[0].Value), string(e.get("to").Kvs[0].Value)
				if from != strconv.Itoa(start-workers*transfers) || to != strconv.Itoa(workers*transfers) {
					t.Errorf("from %s to %s after %d transfers", from, to, workers*transfers)
				}
			})
		})
	}
}

// transfer moves one from one key to another.
func transfer(e *env, isolation concurrency.Isolation) error {
	_, err := concurrency.NewSTM(e.Client, func(s concurrency.STM) error {
		from, err := strconv.Atoi(s.Get(e.key("from")))
		if err != nil {
			return err
		}
		to, err := strconv.Atoi(s.Get(e.key("to")))
		if err != nil {
			return err
		}
		s.Put(e.key("from"), strconv.Itoa(from-1))
		s.Put(e.key("to"), strconv.Itoa(to+1))
		return nil
	}, concurrency.WithIsolation(isolation), concurrency.WithAbortContext(e.ctx))
	return err
}

// A client that knows one member must learn of the others, or it is lost when that one goes.
func TestClientFindsMembers(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		client := newClient(t, e.cluster.Members[0].Endpoint())
		if err := client.Sync(e.ctx); err != nil {
			t.Fatal(err)
		}
		if got := len(client.Endpoints()); got != len(e.cluster.Members) {
			t.Errorf("%d endpoints after a sync, want %d", got, len(e.cluster.Members))
		}
		if _, err := client.Put(clientv3.WithRequireLeader(e.ctx), e.key("k"), "v"); err != nil {
			t.Errorf("put that requires a leader: %v", err)
		}
	})
}
