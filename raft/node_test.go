package raft

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// If this fails, a one-member cluster is not ready for seconds after a start.
func TestSingleMemberLeadsAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		begin := time.Now()
		n := c.start(1, bootstrap(t, 1), nil)
		n.put("a")
		if waited := time.Since(begin); waited > 0 {
			t.Fatalf("the only member led after %v, want at once", waited)
		}
	})
}

// If this fails, every put of one client pays for more disk syncs than needed.
func TestSyncsPerPut(t *testing.T) {
	for _, members := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d members", members), func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster) {
				nodes := c.startAll(members)
				lead := leader(t, nodes...)
				lead.put("warm")
				synctest.Wait()
				count := func() (sum int) {
					for _, n := range nodes {
						sum += n.log.syncCount()
					}
					return sum
				}
				before := count()
				const puts = 10
				for i := range puts {
					lead.put(fmt.Sprint(i))
					synctest.Wait()
				}
				for _, n := range nodes {
					n.untilApplied("9")
				}
				if got := count() - before; got != puts*members {
					t.Fatalf("%d puts cost %d syncs, want %d", puts, got, puts*members)
				}
			})
		})
	}
}

// If this fails, many clients together are as slow as one after the other.
func TestConcurrentPutsShareSyncs(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		n := c.start(1, bootstrap(t, 1), nil)
		n.put("warm")
		resume := n.log.hang()
		if err := n.Propose(c.ctx, []byte("first")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the writer hangs in its sync
		before, appends := n.log.syncCount(), n.log.appends
		for i := range 1000 {
			if err := n.Propose(c.ctx, fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		resume()
		n.untilApplied("999")
		synctest.Wait()
		if got := n.log.syncCount() - before; got != 2 {
			t.Fatalf("1001 puts cost %d syncs, want 2", got)
		}
		if got := n.log.appends - appends; got > 4 {
			t.Fatalf("1001 puts cost %d appends, want at most 4", got)
		}
	})
}

// If this fails, an acknowledged write can be lost when the power goes.
func TestNothingIsAppliedBeforeItsSync(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		n := c.start(1, bootstrap(t, 1), nil)
		n.put("warm")
		resume := n.log.hang()
		if err := n.Propose(c.ctx, []byte("a")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second) // fake time: every timer there is has run
		synctest.Wait()
		n.mu.Lock()
		early := len(n.applied) > 1
		n.mu.Unlock()
		if early {
			t.Fatal("applied while the sync had not returned")
		}
		resume()
		n.untilApplied("a")
	})
}

// If this fails, a leader whose disk hangs for a while is deposed although the
// members hear each other and nobody else could lead.
func TestTicksGoOnWhileDiskHangs(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		nodes := c.startAll(2)
		lead := leader(t, nodes...)
		lead.put("warm")
		term := lead.Status().Term
		resume := lead.log.hang()
		if err := lead.Propose(c.ctx, []byte("a")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		resume()
		lead.untilApplied("a")
		if s := lead.Status(); s.Term != term || s.Role != Leader {
			t.Fatalf("leader in term %d became %v in term %d", term, s.Role, s.Term)
		}
	})
}

// If this fails, a member goes on after its log could not be written.
func TestFailedWriteStopsTheNode(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		n := c.start(1, bootstrap(t, 1), nil)
		n.put("warm")
		n.log.mu.Lock()
		n.log.fail = errDisk
		n.log.mu.Unlock()
		if err := n.Propose(c.ctx, []byte("a")); err != nil {
			t.Fatal(err)
		}
		if err := <-n.err; !errors.Is(err, errDisk) {
			t.Fatalf("Run returned %v, want the disk's error", err)
		}
		if _, err := n.ReadIndex(c.ctx); !errors.Is(err, ErrStopped) {
			t.Fatalf("read after the end: %v", err)
		}
		if err := n.Propose(c.ctx, []byte("b")); !errors.Is(err, ErrStopped) {
			t.Fatalf("propose after the end: %v", err)
		}
		if conf := n.ApplyConfChange(nil); !conf.Has(1) {
			t.Fatalf("ApplyConfChange after the end gave %v", conf)
		}
	})
}

// If this fails, a client without a leader gets an error at once, or waits
// longer than it wants to.
func TestProposalsAndReadsWaitForALeader(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		n := c.start(1, bootstrap(t, 3), nil)
		ctx, cancel := context.WithTimeout(c.ctx, 7*time.Second)
		defer cancel()
		begin := time.Now()
		if err := n.Propose(ctx, []byte("a")); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("propose without a leader: %v", err)
		}
		if waited := time.Since(begin); waited != 7*time.Second {
			t.Fatalf("waited %v", waited)
		}
		ctx, cancel = context.WithTimeout(c.ctx, time.Minute)
		defer cancel()
		read := make(chan error, 1)
		go func() {
			_, err := n.ReadIndex(ctx)
			read <- err
		}()
		synctest.Wait()
		c.start(2, bootstrap(t, 3), nil)
		c.start(3, bootstrap(t, 3), nil)
		if err := n.Propose(ctx, []byte("b")); err != nil {
			t.Fatalf("propose once there is a leader: %v", err)
		}
		if err := <-read; err != nil {
			t.Fatalf("read once there is a leader: %v", err)
		}
		n.untilApplied("b")
	})
}

// If this fails, a slow disk lets proposals fill the memory.
func TestFullQueueRefuses(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		n := c.start(1, bootstrap(t, 1), func(cfg *Config) {
			cfg.ProposalBytesMax, cfg.WriteBytesMax = 10_000, 10_000
		})
		n.put("warm")
		resume := n.log.hang()
		refused := 0
		for range 200 {
			switch err := n.Propose(c.ctx, make([]byte, 1000)); {
			case errors.Is(err, ErrTooManyRequests):
				refused++
			case err != nil:
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if refused < 150 || refused == 200 {
			t.Fatalf("%d of 200 refused", refused)
		}
		resume()
		time.Sleep(time.Second)
		n.put("after") // and the queue drains again
	})
}

// If this fails, a read on any member can miss a write acknowledged before.
func TestReadIndexCoversAcknowledgedWrites(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		nodes := c.startAll(3)
		lead := leader(t, nodes...)
		for i := range 20 {
			lead.put(fmt.Sprint(i))
			lead.mu.Lock()
			at := lead.last.Index
			lead.mu.Unlock()
			for _, n := range nodes {
				if index, err := n.ReadIndex(c.ctx); err != nil || index < at {
					t.Fatalf("member %d: read index %d, %v; %d was acknowledged", n.cfg.ID, index, err, at)
				}
			}
		}
	})
}

// If this fails, many readers cost the leader a round of messages each.
func TestConcurrentReadsShareARound(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		nodes := c.startAll(3)
		n := follower(t, nodes...)
		busy := make(chan struct{})
		n.in.call(func(*core) { <-busy })
		synctest.Wait() // the readers come while the loop has other work
		var group sync.WaitGroup
		for range 1000 {
			group.Go(func() {
				if _, err := n.ReadIndex(c.ctx); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(busy)
		group.Wait()
		asked := make(chan uint64, 1)
		n.ask(c.ctx, func(c *core) { asked <- c.reads.lastID })
		if rounds := <-asked; rounds != 1 {
			t.Fatalf("1000 reads took %d rounds, want 1", rounds)
		}
	})
}

// If this fails, a read hangs until its timeout when the leader is lost, or a
// deposed leader answers reads.
func TestReadFailsWhenTheLeaderChanges(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		nodes := c.startAll(3)
		lead := leader(t, nodes...)
		lead.put("a")
		c.partition(lead.cfg.ID, true)
		if _, err := lead.ReadIndex(c.ctx); !errors.Is(err, ErrLeaderChanged) {
			t.Fatalf("read on a leader cut off: %v, want %v", err, ErrLeaderChanged)
		}
	})
}

// If this fails, a planned restart of the leader costs an election timeout.
func TestTransferLeader(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		nodes := c.startAll(3)
		lead := leader(t, nodes...)
		lead.put("a")
		other := follower(t, nodes...)
		if err := other.TransferLeader(c.ctx, lead.cfg.ID); !errors.Is(err, ErrNotLeader) {
			t.Fatalf("transfer asked of a follower: %v", err)
		}
		if err := lead.TransferLeader(c.ctx, 99); !errors.Is(err, ErrBadTransferee) {
			t.Fatalf("transfer to a stranger: %v", err)
		}
		begin := time.Now()
		if err := lead.TransferAway(c.ctx); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(begin); waited > 500*time.Millisecond {
			t.Fatalf("transfer took %v", waited)
		}
		if leader(t, nodes...) == lead {
			t.Fatal("the old leader still leads")
		}
		lead.put("b") // forwarded
	})
}

// If this fails, proposals during a transfer are lost and their clients time out.
func TestProposalsWaitForATransfer(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		nodes := c.startAll(3)
		lead := leader(t, nodes...)
		lead.put("a")
		done := make(chan error, 1)
		go func() { done <- lead.TransferAway(c.ctx) }()
		for i := range 50 {
			if err := lead.Propose(c.ctx, fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			lead.untilApplied(fmt.Sprint(i))
		}
	})
}

// If this fails, members cannot be added, promoted or removed while it runs.
func TestMembershipChanges(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		one := c.start(1, bootstrap(t, 1), nil)
		one.put("a")
		change := func(kind ConfChangeKind, id MemberID, done func(ConfState) bool) {
			t.Helper()
			if err := one.ProposeConfChange(c.ctx, ConfChange{ID: 7, Kind: kind, Member: id}); err != nil {
				t.Fatal(err)
			}
			one.until("membership", func() bool { return done(one.last.Conf) })
		}
		change(AddLearner, 2, func(s ConfState) bool { return has(s.Learners, 2) })
		two := c.start(2, State{}, nil)
		two.untilApplied("a")
		if err := one.TransferLeader(c.ctx, 2); !errors.Is(err, ErrBadTransferee) {
			t.Fatalf("transfer to a learner: %v", err)
		}
		if one.solo.Load() == 0 {
			t.Fatal("a learner must not slow down the reads of the only voter")
		}
		change(AddVoter, 2, func(s ConfState) bool { return has(s.Voters, 2) })
		synctest.Wait()
		if one.solo.Load() != 0 {
			t.Fatal("reads without a quorum although there are two voters")
		}
		if _, err := two.ReadIndex(c.ctx); err != nil {
			t.Fatal(err)
		}
		list, err := one.Progress(c.ctx)
		if err != nil || len(list) != 2 || list[1].State != "replicate" {
			t.Fatalf("progress %+v, %v", list, err)
		}
		change(RemoveMember, 2, func(s ConfState) bool { return !s.Has(2) })
		two.until("own removal", func() bool { return !two.last.Conf.Has(2) })
		two.stop()
		one.put("b")
	})
}

// If this fails, a member that was away for long never catches up.
func TestLaggingMemberGetsASnapshot(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		nodes := c.startAll(3)
		lead := leader(t, nodes...)
		away := follower(t, nodes...)
		c.partition(away.cfg.ID, true)
		for i := range 300 {
			lead.put(fmt.Sprint(i))
		}
		c.partition(away.cfg.ID, false)
		lead.put("z")
		away.until("the leader's position", func() bool { return away.last.Index >= lead.Status().Commit })
		away.mu.Lock()
		defer away.mu.Unlock()
		if away.snapshots != 1 || len(away.log.snapshots) != 1 || away.log.files != 1 {
			t.Fatalf("%d snapshots applied, %d records, %d files; want 1 of each", away.snapshots, len(away.log.snapshots), away.log.files)
		}
	})
}

// If this fails, the log on disk grows for ever, or is cut before it may be.
func TestSaveSnapshotReleasesTheLog(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		n := c.start(1, bootstrap(t, 1), nil)
		n.put("a")
		n.mu.Lock()
		meta := n.last
		n.mu.Unlock()
		if err := n.SaveSnapshot(c.ctx, meta, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		n.log.mu.Lock()
		defer n.log.mu.Unlock()
		if n.log.files != 1 || len(n.log.snapshots) != 1 || n.log.released != uint64(meta.Index) {
			t.Fatalf("files %d, records %v, released %d", n.log.files, n.log.snapshots, n.log.released)
		}
	})
}

// If this fails, a restart after a crash loses entries or stops with a panic
// when the state is ahead of the saved commit index.
func TestRestartWithStateAheadOfCommit(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		n := c.start(1, bootstrap(t, 1), nil)
		for i := range 10 {
			n.put(fmt.Sprint(i))
		}
		n.stop()
		if err := <-n.err; err != nil {
			t.Fatal(err)
		}
		s := State{HardState: n.log.hs, Entries: n.log.entries, Conf: n.last.Conf, Applied: n.last.Index}
		*s.HardState.Commit -= 3 // the commit index is not synced
		again, err := New(Config{ID: 1, Log: n.log, Start: s, Transport: n, Snapshots: n, Rand: n.cfg.Rand})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(c.ctx)
		defer cancel()
		c.group.Go(func() { _ = again.Run(ctx) })
		a := <-again.Applies()
		if want := Index(*s.HardState.Commit); a.Entries[0].Index > want+1 {
			t.Fatalf("first entry after the restart is %d, commit on disk was %d", a.Entries[0].Index, want)
		}
	})
}

// If this fails, etcd refuses a directory that Kvorum left after a clean stop,
// since the state is ahead of the log's commit index.
func TestCleanStopSavesTheCommitIndex(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		nodes := c.startAll(3)
		lead := leader(t, nodes...)
		for i := range 20 {
			lead.put(fmt.Sprint(i))
		}
		for _, n := range nodes {
			n.stop()
			if err := <-n.err; err != nil {
				t.Fatal(err)
			}
			if saved := Index(n.log.hs.GetCommit()); saved < n.last.Index {
				t.Fatalf("member %d applied %d, saved commit %d", n.cfg.ID, n.last.Index, saved)
			}
		}
	})
}

// If this fails, a directory put together from files of different times starts
// and silently swallows writes.
func TestAppliedBeyondLogIsRefused(t *testing.T) {
	s := bootstrap(t, 1)
	s.Applied, s.Conf = 100, ConfState{Voters: []MemberID{1}}
	n := &testNode{}
	if _, err := New(Config{ID: 1, Log: &memLog{}, Start: s, Transport: n, Snapshots: n, Rand: zeros{}}); !errors.Is(err, ErrAppliedBeyondLog) {
		t.Fatalf("got %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
