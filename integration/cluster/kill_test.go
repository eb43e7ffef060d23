package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/process"
)

// If this fails, the loss of a minority of the machines can lose data that
// clients were told is safe, or leave the cluster without a leader.
func TestKillMinority(t *testing.T) {
	for _, size := range []int{3, 5} {
		t.Run(fmt.Sprintf("%d-nodes", size), func(t *testing.T) {
			t.Parallel()
			r := newRand(t)
			e := start(t, process.Options{Size: size})
			j := e.load(r, "k/", 6, 64)
			j.progress(50)
			var waits []time.Duration
			for end := time.Now().Add(lasting(20*time.Second, 10*time.Minute)); time.Now().Before(end); {
				waits = append(waits, e.killSome(r, j)...)
			}
			j.finish()
			reportElections(t, waits)
		})
	}
}

// killSome kills a random minority at once, waits until the rest goes on, and
// starts them again. It gives how long the rest was without a leader, when the
// leader was among the killed.
func (e *env) killSome(r *rand.Rand, j *journal) []time.Duration {
	e.t.Helper()
	leader, rest := e.followers()
	victims := append([]*process.Member(nil), rest...)
	r.Shuffle(len(victims), func(a, b int) { victims[a], victims[b] = victims[b], victims[a] })
	victims = victims[:1+r.IntN((len(e.Members)-1)/2)]
	withLeader := r.IntN(3) > 0
	if withLeader {
		victims[0] = leader
	}
	var left []*process.Member
	marks := map[*process.Member]int{}
	for _, m := range e.Members {
		if !contains(victims, m) {
			left = append(left, m)
			marks[m] = mark(m)
		}
	}
	killed := time.Now()
	for _, m := range victims {
		m.Signal(kill)
	}
	for _, m := range victims {
		m.WaitExit()
	}
	var waits []time.Duration
	if withLeader {
		waits = append(waits, e.electionAfter(killed, left, marks))
	}
	j.progress(20)
	for _, m := range victims {
		e.mustStart(m)
	}
	e.caughtUp(victims)
	return waits
}

// electionAfter waits for the first word of a new leader in the logs of those
// who are left, and tells how long after the kill it came.
func (e *env) electionAfter(killed time.Time, left []*process.Member, marks map[*process.Member]int) time.Duration {
	e.t.Helper()
	var first time.Time
	until(e.t, "a new leader", waitMax, func() error {
		for _, m := range left {
			for _, l := range logged(m, marks[m]) {
				if strings.HasPrefix(l.Msg, "raft.node:") && l.Leader != "" && l.Leader != "0" && l.At.After(killed) && (first.IsZero() || l.At.Before(first)) {
					first = l.At
				}
			}
		}
		if first.IsZero() {
			return fmt.Errorf("no log names one")
		}
		return nil
	})
	return first.Sub(killed)
}

// caughtUp waits until members have applied what the leader had committed.
func (e *env) caughtUp(members []*process.Member) {
	e.t.Helper()
	goal := e.mustStatus(e.leader()).RaftIndex
	for _, m := range members {
		until(e.t, fmt.Sprintf("%s catches up to index %d", m.Name, goal), waitMax, func() error {
			s, err := e.status(m)
			if err == nil && s.RaftAppliedIndex < goal {
				err = fmt.Errorf("it is at %d", s.RaftAppliedIndex)
			}
			return err
		})
	}
}

// reportElections asserts what was promised, with room for a machine on which
// other tests run: a new leader within two election timeouts; only a split vote
// costs another round.
func reportElections(t *testing.T, waits []time.Duration) {
	t.Helper()
	if len(waits) == 0 {
		t.Log("no leader was killed")
		return
	}
	slices.Sort(waits)
	median, worst := waits[len(waits)/2], waits[len(waits)-1]
	t.Logf("a new leader after %d kills of the leader: median %s, max %s", len(waits), median.Round(time.Millisecond), worst.Round(time.Millisecond))
	const scheduling = time.Second
	if median > 2*electionTimeout+scheduling {
		t.Errorf("in half of the cases it took more than two election timeouts: %v", waits)
	}
	if worst > 4*electionTimeout+scheduling {
		t.Errorf("it took more than two rounds of voting: %v", waits)
	}
}

// If this fails, a power failure of the whole site loses acknowledged data.
func TestKillAll(t *testing.T) {
	for _, size := range []int{1, 3, 5} {
		t.Run(fmt.Sprintf("%d-nodes", size), func(t *testing.T) {
			t.Parallel()
			r := newRand(t)
			e := start(t, process.Options{Size: size})
			for round := range rounds(2, 20) {
				j := e.load(r, fmt.Sprintf("all/%d/", round), 8, 64)
				j.progress(int64(50 + r.IntN(500)))
				for _, m := range e.Members {
					m.Signal(kill)
				}
				for _, m := range e.Members {
					m.WaitExit()
				}
				j.stop()
				j.done.Wait()
				e.mustStartAll()
				j.check()
			}
		})
	}
}
