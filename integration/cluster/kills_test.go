package cluster

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/process"
)

// killCounts are how many single members are killed, and how often all at once:
// 1,000 and 100 in long runs. KVORUM_KILLS=n makes them n and a tenth of it.
func killCounts(t *testing.T) (single, all int) {
	t.Helper()
	single = rounds(10, 1000)
	if text := os.Getenv("KVORUM_KILLS"); text != "" {
		var err error
		if single, err = strconv.Atoi(text); err != nil || single < 1 {
			t.Fatalf("KVORUM_KILLS=%q is not a count of kills", text)
		}
	}
	return single, max(1, single/10)
}

// killsPerCheck is after how many kills everything acknowledged is read back.
const killsPerCheck = 100

// If this fails, a cluster that lives long enough loses something that it has
// acknowledged.
func TestKillCount(t *testing.T) {
	t.Parallel()
	single, all := killCounts(t)
	r := newRand(t)
	e := start(t, process.Options{Size: 3, Args: smallLog()})
	began := time.Now()
	sum := e.killOften(r, single, func() { e.killOne(r) })
	t.Logf("%d kills of one member: %s", single, sum)
	sum = e.killOften(r, all, e.killEveryone)
	t.Logf("%d kills of all members: %s; all of it in %s", all, sum, time.Since(began).Round(time.Second))
}

// killOften kills n times under load and reads everything back now and then.
func (e *env) killOften(r *rand.Rand, n int, kill func()) tally {
	e.t.Helper()
	var sum tally
	for done := 0; done < n; {
		j := e.load(r, "kills/"+strconv.FormatUint(r.Uint64(), 36)+"/", 4, 64)
		for range min(killsPerCheck, n-done) {
			j.progress(int64(1 + r.IntN(60)))
			kill()
			done++
		}
		j.progress(5)
		j.finish()
		sum.add(j.tally())
	}
	return sum
}

// killOne kills a member, the leader as often as another, and starts it again,
// at times only when the others have gone on.
func (e *env) killOne(r *rand.Rand) {
	e.t.Helper()
	m := e.Members[r.IntN(len(e.Members))]
	if r.IntN(2) == 0 {
		m = e.leader()
	}
	m.Kill()
	if r.IntN(2) == 0 {
		e.leader(m)
	}
	e.mustStart(m)
}

func (e *env) killEveryone() {
	e.t.Helper()
	for _, m := range e.Members {
		m.Signal(kill)
	}
	for _, m := range e.Members {
		m.WaitExit()
	}
	e.mustStartAll()
}
