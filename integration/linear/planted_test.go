//go:build planted

package linear

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/plant"
)

// A check that cannot fail lets every bug of its kind pass. Each of these bugs is put into the real server, and the run
// that looks for bugs must find it.
func TestPlantedBugsAreCaught(t *testing.T) {
	binary := kvorumBinary(t, "planted")
	var table strings.Builder
	for _, bug := range []plant.Bug{plant.DropAcknowledged, plant.StaleRead, plant.SkipWatchEvent, plant.ApplyTwice, plant.ExpireEarly} {
		t.Run(string(bug), func(t *testing.T) {
			var load time.Duration
			operations := 0
			for i, round := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second} {
				seed := planned(t).seed + uint64(i)
				t.Logf("KVORUM_SEED=%d", seed)
				r := start(t, seed, 3, binary, "KVORUM_PLANTED="+string(bug))
				h := r.record(round)
				load, operations = load+round, operations+len(h.Operations)
				if v := r.verdict(h); len(v.Violations) > 0 {
					fmt.Fprintf(&table, "| %s | %s | %.0f s of load, %d operations | %s |\n", bug, strings.Join(v.Checks(), ", "), load.Seconds(), operations, excerpt(v))
					return
				}
				r.cluster.Stop()
			}
			t.Errorf("not caught in %s of load and %d operations", load, operations)
		})
	}
	t.Run("none", func(t *testing.T) {
		r := start(t, planned(t).seed, 3, binary)
		r.judge(r.record(4 * time.Second))
	})
	t.Logf("caught:\n| bug | by | after | for instance |\n|---|---|---|---|\n%s", &table)
}

// excerpt is the beginning of the first violation.
func excerpt(v Verdict) string {
	text := v.Violations[0].Text
	return strings.ReplaceAll(text[:min(len(text), 120)], "|", "/")
}
