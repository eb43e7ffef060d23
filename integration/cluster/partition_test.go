package cluster

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/process"
)

// startApart starts a cluster whose links can be cut.
func startApart(t *testing.T, size int) (*env, *network) {
	t.Helper()
	n := newNetwork(t)
	e := start(t, process.Options{Size: size, Advertise: n.advertise(t)})
	e.serves(e.client)
	if err := n.know(e); err != nil {
		t.Fatal(err)
	}
	e.serves(e.client)
	return e, n
}

// If this fails, a leader that lost the network goes on as if it led: two halves
// of the cluster both take writes, and one of them loses its own.
func TestIsolatedLeader(t *testing.T) {
	t.Parallel()
	e, n := startApart(t, 3)
	j := e.load(newRand(t), "p/", 4, 32)
	for range rounds(2, 10) {
		j.progress(30)
		old, rest := e.followers()
		term := e.mustStatus(old).RaftTerm
		n.isolate(old.Name)
		alone := e.writeAlone(old)
		next := e.leader(old)
		if got := e.mustStatus(next).RaftTerm; got <= term {
			t.Errorf("%s leads in term %d, the isolated %s led in %d", next.Name, got, old.Name, term)
		}
		e.avoid(old)
		j.progress(30)
		until(t, "the isolated leader steps down", waitMax, func() error {
			s, err := e.status(old)
			if err == nil && s.Leader != 0 {
				err = fmt.Errorf("it says that %x leads", s.Leader)
			}
			return err
		})
		if acks := alone(); acks != 0 {
			t.Errorf("the isolated leader acknowledged %d writes", acks)
		}
		n.heal()
		e.avoid()
		e.caughtUp(append(rest, old))
	}
	j.finish()
}

// writeAlone writes to one member until the returned function is called, which
// tells how many of the writes that began after now were acknowledged.
func (e *env) writeAlone(m *process.Member) (stop func() int64) {
	c := e.at(m)
	ctx, cancel := context.WithCancel(e.ctx)
	var acks atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			call, cancel := context.WithTimeout(ctx, time.Second)
			if _, err := c.Put(call, fmt.Sprintf("alone/%d", i), "?"); err == nil {
				acks.Add(1)
			}
			// A read may not be answered from what the member remembers either.
			if _, err := c.Get(call, "alone/0"); err == nil {
				acks.Add(1)
			}
			cancel()
		}
	}()
	return func() int64 {
		cancel()
		<-done
		return acks.Load()
	}
}

// If this fails, a member that can speak but not hear, or hear but not speak,
// stops the whole cluster.
func TestOneWayPartition(t *testing.T) {
	for _, deaf := range []bool{true, false} {
		t.Run(fmt.Sprintf("deaf=%t", deaf), func(t *testing.T) {
			t.Parallel()
			e, n := startApart(t, 3)
			j := e.load(newRand(t), "o/", 4, 32)
			j.progress(30)
			for _, ofLeader := range []bool{false, true} {
				leader, rest := e.followers()
				m := rest[0]
				if ofLeader {
					m = leader
				}
				if deaf {
					n.sever(link{"", m.Name})
				} else {
					n.sever(link{m.Name, ""})
				}
				e.avoid(m)
				// The rest goes on, with another leader if it has to.
				j.progress(50)
				pass(t, 2*electionTimeout)
				term := e.mustStatus(e.leader(m)).RaftTerm
				pass(t, 2*electionTimeout)
				if now := e.mustStatus(e.leader(m)).RaftTerm; now != term {
					t.Errorf("the term went from %d to %d while %s was cut off: it disturbs the others", term, now, m.Name)
				}
				j.progress(50)
				n.heal()
				e.avoid()
				e.caughtUp(append(rest, leader))
			}
			j.finish()
		})
	}
}

// If this fails, the members that still see a majority stop, or a minority goes
// on.
func TestSplitFive(t *testing.T) {
	t.Parallel()
	e, n := startApart(t, 5)
	j := e.load(newRand(t), "s/", 4, 32)
	j.progress(30)
	leader, rest := e.followers()
	minority := []*process.Member{leader, rest[0]}
	for _, inside := range minority {
		for _, outside := range rest[1:] {
			n.sever(link{inside.Name, outside.Name}, link{outside.Name, inside.Name})
		}
	}
	alone := e.writeAlone(rest[0])
	e.avoid(minority...)
	e.leader(minority...)
	j.progress(50)
	if acks := alone(); acks != 0 {
		t.Errorf("the minority acknowledged %d requests", acks)
	}
	n.heal()
	e.avoid()
	e.caughtUp(e.Members)
	j.finish()
}
