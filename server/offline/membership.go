package offline

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/server/state"
)

// roll is the membership while the log is read.
type roll struct {
	conf raft.ConfState
	urls map[raft.MemberID][]string
}

// membersAfter applies the log's changes in (from, to] to the membership at
// from. A change that the machine refused has changed nothing: known is asked
// for what the log does not say.
func membersAfter(conf raft.ConfState, changes []*raft.RawEntry, from, to uint64, known *state.Machine) (raft.ConfState, error) {
	r := roll{conf: raft.ConfState{Voters: slices.Clone(conf.Voters), Learners: slices.Clone(conf.Learners)}, urls: map[raft.MemberID][]string{}}
	for _, id := range slices.Concat(conf.Voters, conf.Learners) {
		if m, ok := known.Member(state.MemberID(id)); ok {
			r.urls[id] = m.PeerURLs
		}
	}
	for _, e := range changes {
		if e.GetIndex() <= from || e.GetIndex() > to {
			continue
		}
		cc, err := raft.DecodeConfChange(e.GetData())
		if err != nil {
			return conf, fmt.Errorf("entry %d: %w", e.GetIndex(), err)
		}
		var m state.Member
		if len(cc.Context) > 0 {
			if err := json.Unmarshal(cc.Context, &m); err != nil {
				return conf, fmt.Errorf("entry %d: read the member that it adds: %w", e.GetIndex(), err)
			}
		}
		_, has := known.Member(state.MemberID(cc.Member))
		r.apply(cc, m, has)
	}
	return r.conf, nil
}

func (r *roll) apply(cc raft.ConfChange, m state.Member, inDatabase bool) {
	without := func(ids []raft.MemberID) []raft.MemberID {
		return slices.DeleteFunc(ids, func(id raft.MemberID) bool { return id == cc.Member })
	}
	switch cc.Kind {
	case raft.RemoveMember:
		r.conf.Voters, r.conf.Learners = without(r.conf.Voters), without(r.conf.Learners)
		delete(r.urls, cc.Member)
	case raft.AddLearner:
		if !r.conf.Has(cc.Member) && !r.refused(m, inDatabase) {
			r.conf.Learners = append(r.conf.Learners, cc.Member)
			r.urls[cc.Member] = m.PeerURLs
		}
	case raft.AddVoter:
		switch {
		case slices.Contains(r.conf.Learners, cc.Member): // a promotion
			r.conf.Learners = without(r.conf.Learners)
			r.conf.Voters = append(r.conf.Voters, cc.Member)
		case !r.conf.Has(cc.Member) && !r.refused(m, inDatabase):
			r.conf.Voters = append(r.conf.Voters, cc.Member)
			r.urls[cc.Member] = m.PeerURLs
		}
	case raft.UpdateMember:
		if r.conf.Has(cc.Member) {
			r.urls[cc.Member] = m.PeerURLs
		}
	}
}

// refused tells whether the machine took no notice of an addition: another
// member has its URL, or there were too many learners.
func (r *roll) refused(m state.Member, inDatabase bool) bool {
	if inDatabase {
		return false
	}
	if m.IsLearner && len(r.conf.Learners) > 0 {
		return true
	}
	for _, urls := range r.urls {
		if slices.ContainsFunc(urls, func(u string) bool { return slices.Contains(m.PeerURLs, u) }) {
			return true
		}
	}
	return false
}
