//go:build planted

package sim

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/plant"
)

// If this fails, the simulation has become blind to a kind of bug that loses
// data: it would pass although the bug is there.
func TestSimulationCatchesPlantedBugs(t *testing.T) {
	keepRandom(t)
	seeds := uint64(400)
	if n, err := strconv.ParseUint(os.Getenv("KVORUM_SEEDS"), 10, 64); err == nil {
		seeds = n
	}
	for _, bug := range []plant.Bug{
		plant.VoteUnsynced, plant.AskBeforeTerm, plant.AnswerUnsynced, plant.CommitBelowSnapshot, plant.TailKept, plant.TailTrusted,
		plant.ConfChangeTwice, plant.DropAcknowledged, plant.ApplyTwice, plant.SkipWatchEvent, plant.StaleRead, plant.ExpireEarly,
		plant.PromoteAgain,
	} {
		if only := os.Getenv("KVORUM_BUG"); only != "" && only != string(bug) {
			continue
		}
		t.Run(string(bug), func(t *testing.T) { catchBug(t, bug, seeds) })
	}
}

// catchBug plays seeds until one fails, and says how long that took.
func catchBug(t *testing.T, bug plant.Bug, seeds uint64) {
	t.Helper()
	undo := plant.Set(bug)
	defer undo()
	began, steps := time.Now(), 0
	for seed := uint64(1); seed <= seeds; seed++ {
		s, err := play(t, seed)
		steps += s.Counts().Steps
		if err != nil {
			first, _, _ := strings.Cut(err.Error(), "\n")
			t.Logf("caught by seed %d after %d steps, %.1f s: %s", seed, steps, time.Since(began).Seconds(), first)
			return
		}
	}
	t.Errorf("not caught in %d seeds, %d steps, %.1f s", seeds, steps, time.Since(began).Seconds())
}
