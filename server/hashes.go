package server

import (
	"slices"

	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/server/state"
)

// hashAnswer is what one member said its history up to a revision hashes to.
type hashAnswer struct {
	member state.MemberID
	hash   mvcc.HashKV
}

// verdict is what a comparison of the members' hashes came to.
type verdict struct {
	agreed    []state.MemberID // a majority of the cluster whose hashes are equal; none if there is no such
	damaged   []state.MemberID // differ from the majority
	undecided bool             // some differ, and nobody can say which are right
}

// judge compares the hashes of the members of a cluster of so many at one
// revision. Only hashes of equal compactions can be compared: a compaction takes
// records out of what is hashed. What most members of the cluster have is right,
// since that is what they have agreed on; who differs from it is damaged.
// Without such a majority a difference says only that somebody is.
func judge(members int, answers []hashAnswer) verdict {
	byCompaction := map[mvcc.Revision]map[uint32][]state.MemberID{}
	for _, a := range answers {
		hashes := byCompaction[a.hash.CompactRevision]
		if hashes == nil {
			hashes = map[uint32][]state.MemberID{}
			byCompaction[a.hash.CompactRevision] = hashes
		}
		hashes[a.hash.Hash] = append(hashes[a.hash.Hash], a.member)
	}
	var v verdict
	for _, hashes := range byCompaction {
		v.add(hashes, members/2+1)
	}
	slices.Sort(v.agreed)
	slices.Sort(v.damaged)
	return v
}

// add judges the members of one compaction. A quorum exists in one at most.
func (v *verdict) add(hashes map[uint32][]state.MemberID, quorum int) {
	var most []state.MemberID
	for _, equal := range hashes {
		if len(equal) > len(most) {
			most = equal
		}
	}
	if len(most) < quorum {
		v.undecided = v.undecided || len(hashes) > 1
		return
	}
	v.agreed = most
	for _, equal := range hashes {
		for _, id := range equal {
			if !slices.Contains(most, id) {
				v.damaged = append(v.damaged, id)
			}
		}
	}
}
