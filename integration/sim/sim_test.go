package sim

import (
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// play runs one seed.
func play(t *testing.T, seed uint64) (*Sim, error) {
	t.Helper()
	dir, err := Dir()
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	s, err := New(seed, dir)
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	defer s.Close()
	return s, s.Run()
}

// givenSeed is the one seed to play, if the caller has chosen it.
func givenSeed(t *testing.T) (seed uint64, given bool) {
	text := os.Getenv("KVORUM_SEED")
	if text == "" {
		return 0, false
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("KVORUM_SEED: %v", err)
	}
	return seed, true
}

func replay(seed uint64) string { return fmt.Sprintf("replay: make sim SEED=%d", seed) }

// keepRandom gives the process its randomness back after a simulation.
func keepRandom(t *testing.T) {
	real := rand.Reader
	t.Cleanup(func() { rand.Reader = real })
}

// If this fails, a cluster whose members crash, whose network misbehaves and
// whose membership changes loses or changes a write that a client was told is
// safe, answers a read with old data, or has members that hold different data.
func TestSimulatedMembers(t *testing.T) {
	keepRandom(t)
	budget, seeds, steps := time.Duration(0), 50, 400_000
	switch {
	case os.Getenv("KVORUM_LONG") != "":
		budget = soakTime(t)
	case testing.Short():
		seeds, steps = 5, 0
	}
	first, only := givenSeed(t)
	if !only {
		first = mrand.Uint64() % 1e9
	}
	var total Counts
	seed := first
	began := time.Now()
	for ; int(seed-first) < seeds || total.Steps < steps || time.Since(began) < budget; seed++ {
		s, err := play(t, seed)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, replay(seed))
		}
		total.Add(s.Counts())
		if only {
			t.Logf("seed %d: trace %016x, %+v", seed, s.Trace(), total)
			return
		}
	}
	t.Logf("%d seeds from %d, %.0f steps/s: %+v", seed-first, first, float64(total.Steps)/time.Since(began).Seconds(), total)
	if runs := int(seed - first); runs >= 50 && (total.Crashes < runs || total.Acked < 30*runs || total.Reads < 4*runs ||
		total.Received < runs/4 || total.Taken < runs || total.Conf < runs || total.Checks < runs || total.Events < 30*runs ||
		total.Renewed < runs || total.Expired < runs/2 || total.DiskErrors < runs/10) {
		t.Fatalf("the simulation did not exercise what it is for: %+v", total)
	}
}

// soakTime is how long the long run takes: SOAK, or 20 minutes.
func soakTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("SOAK")
	if text == "" {
		return 20 * time.Minute
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("SOAK: %v", err)
	}
	return d
}

// If this fails, something that was mended is broken again. A seed means what
// it did only as long as the simulation draws the same: one that no longer
// meets its fault is harmless.
func TestSimulatedMembersAsBefore(t *testing.T) {
	keepRandom(t)
	for _, seed := range []uint64{
		675267703, // a purge deleted the received database that the log began at
		29201199,  // what a failed sync had left readable was taken for durable
		5,         // a lease was renewed whose revoke was on its way
	} {
		if _, err := play(t, seed); err != nil {
			t.Errorf("seed %d: %v\n%s", seed, err, replay(seed))
		}
	}
}

// If this fails, a failing seed cannot be replayed.
func TestSimulationReplays(t *testing.T) {
	keepRandom(t)
	seeds := []uint64{mrand.Uint64() % 1e9, mrand.Uint64() % 1e9}
	if seed, given := givenSeed(t); given {
		seeds = []uint64{seed}
	}
	for _, seed := range seeds {
		a, errA := play(t, seed)
		b, errB := play(t, seed)
		if err := errors.Join(errA, errB); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, replay(seed))
		}
		if a.Trace() != b.Trace() || a.Counts() != b.Counts() {
			t.Fatalf("seed %d: two runs differ: %+v, %+v\n%s", seed, a.Counts(), b.Counts(), replay(seed))
		}
	}
}
