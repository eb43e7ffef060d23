package server

import (
	"fmt"
	"testing"

	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/server/state"
)

// If this fails, sound members are accused, or damaged ones are not.
func TestJudge(t *testing.T) {
	answer := func(id state.MemberID, hash uint32, compact mvcc.Revision) hashAnswer {
		return hashAnswer{id, mvcc.HashKV{Hash: hash, CompactRevision: compact, HashRevision: 10}}
	}
	ids := func(ids ...state.MemberID) []state.MemberID { return ids }
	for _, c := range []struct {
		what    string
		members int
		answers []hashAnswer
		want    verdict
	}{
		{"alone", 1, []hashAnswer{answer(1, 7, -1)}, verdict{agreed: ids(1)}},
		{"all equal", 3, []hashAnswer{answer(3, 7, 5), answer(1, 7, 5), answer(2, 7, 5)}, verdict{agreed: ids(1, 2, 3)}},
		{"one differs", 3, []hashAnswer{answer(1, 7, 5), answer(2, 8, 5), answer(3, 7, 5)}, verdict{agreed: ids(1, 3), damaged: ids(2)}},
		{"the first differs", 3, []hashAnswer{answer(1, 8, 5), answer(2, 7, 5), answer(3, 7, 5)}, verdict{agreed: ids(2, 3), damaged: ids(1)}},
		{"two of five differ", 5, []hashAnswer{answer(1, 8, 5), answer(2, 9, 5), answer(3, 7, 5), answer(4, 7, 5), answer(5, 7, 5)}, verdict{agreed: ids(3, 4, 5), damaged: ids(1, 2)}},
		{"one of two", 2, []hashAnswer{answer(1, 7, 5), answer(2, 8, 5)}, verdict{undecided: true}},
		{"all differ", 3, []hashAnswer{answer(1, 7, 5), answer(2, 8, 5), answer(3, 9, 5)}, verdict{undecided: true}},
		{"one does not answer", 3, []hashAnswer{answer(1, 7, 5), answer(2, 8, 5)}, verdict{undecided: true}},
		{"most do not answer", 3, []hashAnswer{answer(1, 7, 5)}, verdict{}},
		{"half of four", 4, []hashAnswer{answer(1, 7, 5), answer(2, 7, 5), answer(3, 8, 5), answer(4, 8, 5)}, verdict{undecided: true}},
		{"other compactions cannot be compared", 3, []hashAnswer{answer(1, 7, 5), answer(2, 8, 6), answer(3, 7, 5)}, verdict{agreed: ids(1, 3)}},
		{"none can be compared", 3, []hashAnswer{answer(1, 7, -1), answer(2, 8, 5), answer(3, 9, 6)}, verdict{}},
	} {
		if got := judge(c.members, c.answers); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
	}
}
