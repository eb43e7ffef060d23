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
	const persist = "LeaseCheckpointPersist=true has no effect"
	alpha := []string{"AllAlpha", "CompactHashCheck", "InitialCorruptCheck", "LeaseCheckpoint", "LeaseCheckpointPersist", "PriorityRequest", "SetMemberLocalAddr", "StopGRPCServiceOnDefrag"}
	beta := []string{"FastLeaseKeepAlive", shared}
	for _, c := range []struct {
		gates string
		on    []string
		warns string // a part of the one warning; "" is none
	}{
		{"", beta, ""},
		{"CompactHashCheck=true", append([]string{"CompactHashCheck"}, beta...), ""},
		{"AllAlpha=true", append(alpha, beta...), persist},
		{"InitialCorruptCheck=false,AllAlpha=true", slices.DeleteFunc(append(slices.Clone(alpha), beta...), func(s string) bool { return s == "InitialCorruptCheck" }), persist},
		{"AllBeta=false", nil, shared + "=false"},
		{"AllBeta=true", append([]string{"AllBeta"}, beta...), ""},
		{shared + "=false", []string{"FastLeaseKeepAlive"}, shared + "=false"},
		{"AllBeta=false, " + shared + "=true", []string{shared}, ""},
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
		if warns := strings.Join(r.Warn, "\n"); (warns == "") != (c.warns == "") || len(r.Warn) > 1 || !strings.Contains(warns, c.warns) {
			t.Errorf("%q: warnings %q", c.gates, r.Warn)
		}
	}
}
