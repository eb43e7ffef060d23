package server

import (
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
)

// If this fails, a feature that an operator switched on for its whole stage is
// off, or one that they switched off is on.
func TestFeatureGates(t *testing.T) {
	const shared = "TxnModeWriteWithSharedBuffer"
	alpha := []string{"AllAlpha", "CompactHashCheck", "InitialCorruptCheck", "LeaseCheckpoint", "LeaseCheckpointPersist", "PriorityRequest", "SetMemberLocalAddr", "StopGRPCServiceOnDefrag"}
	beta := []string{"FastLeaseKeepAlive", shared}
	for _, c := range []struct {
		gates string
		on    []string
		warns int
	}{
		{"", beta, 0},
		{"CompactHashCheck=true", append([]string{"CompactHashCheck"}, beta...), 0},
		{"AllAlpha=true", append(alpha, beta...), 0},
		{"InitialCorruptCheck=false,AllAlpha=true", slices.DeleteFunc(append(slices.Clone(alpha), beta...), func(s string) bool { return s == "InitialCorruptCheck" }), 0},
		{"AllBeta=false", nil, 1},
		{"AllBeta=true", append([]string{"AllBeta"}, beta...), 0},
		{shared + "=false", []string{"FastLeaseKeepAlive"}, 1},
		{"AllBeta=false, " + shared + "=true", []string{shared}, 0},
	} {
		r, err := ParseFlags([]string{"--feature-gates=" + c.gates}, nil, io.Discard)
		if err != nil {
			t.Fatalf("%s: %v", c.gates, err)
		}
		slices.Sort(c.on)
		var on []string
		gates := r.Config.gates()
		for _, name := range slices.Sorted(maps.Keys(gates)) {
			if gates[name] {
				on = append(on, name)
			}
		}
		if !slices.Equal(on, c.on) {
			t.Errorf("%q: on are %v, want %v", c.gates, on, c.on)
		}
		if len(r.Warn) != c.warns || (c.warns > 0 && !strings.Contains(r.Warn[0], shared+"=false has no effect")) {
			t.Errorf("%q: warnings %q", c.gates, r.Warn)
		}
	}
}
