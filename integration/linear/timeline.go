package linear

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
)

// Timeline is what happened, by revision: the common story of all who watched the whole keyspace.
type Timeline struct {
	events map[int64][]Event // by revision, in key order
	heard  map[int64]int64   // when the revision was first heard of
	states map[string][]KV   // versions of each key by Mod; Version 0: deleted
	final  int64
}

// firstRevision is the first one that a change can have.
const firstRevision = 2

// NewTimeline puts together what the watchers of everything heard, up to h.Final. Contradictions and gaps are violations.
func NewTimeline(h History) (*Timeline, []string) {
	t := &Timeline{events: map[int64][]Event{}, heard: map[int64]int64{}, states: map[string][]KV{}, final: h.Final}
	var bad []string
	for _, s := range h.Sessions {
		if !s.Whole || s.NoDelete {
			continue
		}
		bad = append(bad, t.merge(s)...)
	}
	for r := int64(firstRevision); r <= t.final; r++ {
		if len(t.events[r]) == 0 {
			bad = append(bad, fmt.Sprintf("timeline: no watcher of everything heard revision %d of %d", r, t.final))
			continue
		}
		bad = append(bad, t.replay(r)...)
	}
	return t, bad
}

// merge takes the events of one session that are new and compares the others.
func (t *Timeline) merge(s *Session) (bad []string) {
	byRevision := map[int64][]Event{}
	for _, n := range s.Notices {
		for _, e := range n.Events {
			byRevision[e.Revision] = append(byRevision[e.Revision], e)
			if at, ok := t.heard[e.Revision]; !ok || n.At < at {
				t.heard[e.Revision] = n.At
			}
		}
	}
	for revision, events := range byRevision {
		for i := range events {
			events[i].HasPrev, events[i].Prev = false, KV{}
		}
		slices.SortStableFunc(events, func(a, b Event) int { return cmp.Compare(a.Key, b.Key) })
		known := t.events[revision]
		if known == nil {
			t.events[revision] = events
		} else if !slices.Equal(known, events) {
			bad = append(bad, fmt.Sprintf("timeline: watchers disagree about revision %d: %+v and, watcher %d at member %d: %+v", revision, known, s.Watcher, s.Member, events))
		}
	}
	return bad
}

// replay checks that the events of a revision follow from the state before, and makes the state after.
func (t *Timeline) replay(revision int64) (bad []string) {
	for i, e := range t.events[revision] {
		if i > 0 && t.events[revision][i-1].Key == e.Key {
			bad = append(bad, fmt.Sprintf("timeline: revision %d changes %s twice", revision, e.Key))
		}
		old := t.At(e.Key, revision-1)
		after := KV{}
		if !e.Delete {
			after = KV{Value: e.KV.Value, Lease: e.KV.Lease, Create: old.Create, Mod: revision, Version: old.Version + 1}
			if old.Version == 0 {
				after.Create = revision
			}
		} else if old.Version == 0 {
			bad = append(bad, fmt.Sprintf("timeline: revision %d deletes %s, which does not exist", revision, e.Key))
		}
		if !e.Delete && e.KV != after {
			bad = append(bad, fmt.Sprintf("timeline: revision %d puts %s as %+v, but %+v follows from the state before", revision, e.Key, e.KV, after))
		}
		if e.Delete {
			after.Mod = revision
		}
		t.states[e.Key] = append(t.states[e.Key], after)
	}
	return bad
}

// At is the state of a key at a revision.
func (t *Timeline) At(key string, revision int64) KV {
	versions := t.states[key]
	i := sort.Search(len(versions), func(i int) bool { return versions[i].Mod > revision })
	if i == 0 || versions[i-1].Version == 0 {
		return KV{}
	}
	return versions[i-1]
}

// Between gives the events that a watcher of a key, or of everything, has to hear in a span of revisions.
func (t *Timeline) Between(s *Session, from, to int64) []Event {
	var all []Event
	for r := max(from, firstRevision); r <= to; r++ {
		for _, e := range t.events[r] {
			if (s.Whole || e.Key == s.Key) && (!s.NoDelete || !e.Delete) {
				all = append(all, e)
			}
		}
	}
	return all
}
