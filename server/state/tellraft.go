package state

import "github.com/kvorum/kvorum/internal/plant"

// TellRaft reports whether raft has to hear of the membership change that came
// to this result, at index. It does not of one that was refused, nor of one that
// it was started with: bootApplied is the index as of which raft was given the
// members at start.
func (r *Result) TellRaft(index, bootApplied uint64) bool {
	known := r.Skipped && index <= bootApplied
	return r.Err == nil && (!known || plant.Here(plant.ConfChangeTwice))
}
