package raft

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// others are the nodes without one.
func others(nodes []*testNode, but *testNode) []*testNode {
	return slices.DeleteFunc(slices.Clone(nodes), func(n *testNode) bool { return n == but })
}

// If this fails, a leader whose disk hangs stays in office: nothing that is
// written is acknowledged until the disk comes back, which may be never.
func TestStalledLeaderIsReplaced(t *testing.T) {
	for _, members := range []int{2, 3, 5} {
		t.Run(fmt.Sprint(members), func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster) {
				nodes := c.startAll(members)
				old := leader(t, nodes...)
				old.put("before")
				resume := old.log.hang()
				began := time.Now()
				if err := old.Propose(c.ctx, []byte("during")); err != nil {
					t.Fatal(err)
				}
				if members == 2 {
					// Its own vote is needed, and waits for its disk: it must not give up office for nothing.
					time.Sleep(5 * time.Second)
					if !old.DiskStalled() || old.Status().Role != Leader {
						t.Errorf("stalled: %t, its role is %v", old.DiskStalled(), old.Status().Role)
					}
				} else {
					rest := others(nodes, old)
					next := leader(t, rest...)
					if took, limit := time.Since(began), 2*time.Second; next == old || took > limit {
						t.Errorf("%v after its disk stalled member %d leads; another should within %v", took, next.cfg.ID, limit)
					}
					next.put("after")
					next.untilApplied("during") // what the quorum stored is not lost
					for i := range 20 {
						next.put(fmt.Sprint("more ", i))
					}
				}
				resume()
				lead := leader(t, nodes...)
				lead.put("end")
				for _, n := range nodes {
					n.untilApplied("during")
					n.untilApplied("end")
				}
				time.Sleep(time.Second) // some ticks of fake time
				synctest.Wait()
				if old.DiskStalled() {
					t.Error("the disk counts as stalled after it came back")
				}
			})
		})
	}
}

// If this fails, leadership wanders about among members whose disks are slow, or
// that share one which hangs: each move interrupts the clients for nothing.
func TestSlowDisksKeepTheLeader(t *testing.T) {
	for name, slow := range map[string]func(c *cluster, nodes []*testNode, old *testNode){
		"one is slow": func(c *cluster, nodes []*testNode, old *testNode) {
			for range 20 {
				resume := old.log.hang()
				_ = old.Propose(c.ctx, []byte("x"))
				time.Sleep(900 * time.Millisecond) // just short of an election timeout
				resume()
				old.put("y")
			}
		},
		"all hang": func(c *cluster, nodes []*testNode, old *testNode) {
			var resumes []func()
			for _, n := range nodes {
				resumes = append(resumes, n.log.hang())
			}
			_ = old.Propose(c.ctx, []byte("x"))
			time.Sleep(20 * time.Second)
			for _, resume := range resumes {
				resume()
			}
			old.put("y")
		},
		"hangs idle": func(c *cluster, nodes []*testNode, old *testNode) {
			resume := old.log.hang()
			time.Sleep(20 * time.Second)
			resume()
			old.put("y")
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster) {
				nodes := c.startAll(3)
				old := leader(t, nodes...)
				old.put("before")
				term := old.Status().Term
				slow(c, nodes, old)
				if now := leader(t, nodes...); now != old || now.Status().Term != term {
					t.Errorf("member %d leads in term %d, after %d in term %d", now.cfg.ID, now.Status().Term, old.cfg.ID, term)
				}
			})
		})
	}
}

// If this fails, a follower whose disk hangs slows the cluster down, or takes
// memory without bound until it is killed for it.
func TestStalledFollowerIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		const writeMax = 1 << 20
		var nodes []*testNode
		for i := range 3 {
			nodes = append(nodes, c.start(MemberID(i+1), bootstrap(t, 3), func(cfg *Config) {
				cfg.WriteBytesMax, cfg.MessageBytesMax, cfg.LogBytesMax = writeMax, writeMax, writeMax
			}))
		}
		lead := leader(t, nodes...)
		f := others(nodes, lead)[0]
		resume := f.log.hang()
		big := string(make([]byte, 64<<10))
		for i := range 200 { // 12.8 MB
			lead.put(fmt.Sprint(i, big))
		}
		if n := f.queue.backlogBytes(); n > 4*writeMax {
			t.Errorf("the stalled follower holds %d bytes that wait for its disk, with a limit of %d", n, writeMax)
		}
		if leader(t, nodes...) != lead {
			t.Error("a follower's disk has changed the leader")
		}
		resume()
		lead.put("end")
		f.until("the end", func() bool { return f.last.Index >= lead.Status().Commit })
		ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
		defer cancel()
		if _, err := f.ReadIndex(ctx); err != nil {
			t.Errorf("read at the follower that is back: %v", err)
		}
	})
}
