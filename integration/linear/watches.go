package linear

import (
	"cmp"
	"fmt"
	"slices"
)

// CheckWatches compares what each watcher heard with the timeline.
func CheckWatches(h History, t *Timeline) []string {
	var bad []string
	for _, s := range h.Sessions {
		for _, problem := range s.check(t) {
			bad = append(bad, fmt.Sprintf("watcher %d at member %d from revision %d on %q: %s", s.Watcher, s.Member, s.From, s.Key, problem))
		}
	}
	return bad
}

// check tells the first thing that is wrong with a session.
func (s *Session) check(t *Timeline) []string {
	if s.CompactRevision != 0 {
		switch {
		case s.CompactRevision > s.CompactedBefore:
			return []string{fmt.Sprintf("canceled as compacted to %d, but nobody had asked for more than %d", s.CompactRevision, s.CompactedBefore)}
		case s.From >= s.CompactRevision:
			return []string{fmt.Sprintf("canceled as compacted to %d, which it did not need", s.CompactRevision)}
		}
	}
	heard, promised := s.heard()
	if promised < 0 {
		return []string{"a progress notice is older than the one before"}
	}
	last := promised
	if len(heard) > 0 {
		last = max(last, heard[len(heard)-1].Revision)
	}
	if last > t.final {
		last = t.final
		heard = slices.DeleteFunc(heard, func(e Event) bool { return e.Revision > t.final })
	}
	if bad := s.compare(t, heard, t.Between(s, s.From, last)); bad != "" {
		return []string{bad}
	}
	return s.promisesKept(t)
}

// heard are the events of all notices, and the largest revision that a progress notice promised; -1: out of order.
func (s *Session) heard() (events []Event, promised int64) {
	for _, n := range s.Notices {
		events = append(events, n.Events...)
		if n.Progress {
			if n.Revision < promised {
				return nil, -1
			}
			promised = n.Revision
		}
	}
	return events, promised
}

// compare tells the first difference. The order of the keys of one revision is free: a transaction's is its own.
func (s *Session) compare(t *Timeline, heard, want []Event) string {
	order := func(a, b Event) int { return cmp.Or(cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Key, b.Key)) }
	for i := 1; i < len(heard); i++ {
		if heard[i].Revision < heard[i-1].Revision {
			return fmt.Sprintf("heard revision %d after %d", heard[i].Revision, heard[i-1].Revision)
		}
	}
	heard = slices.Clone(heard)
	slices.SortStableFunc(heard, order)
	for i, e := range heard {
		if i > 0 && order(heard[i-1], e) == 0 {
			return fmt.Sprintf("heard %s at revision %d twice", e.Key, e.Revision)
		}
		if i >= len(want) || order(e, want[i]) < 0 {
			return fmt.Sprintf("heard %+v, which did not happen", e)
		}
		if order(e, want[i]) > 0 {
			return fmt.Sprintf("did not hear %+v, but then %+v", want[i], e)
		}
		if e.KV != want[i].KV || e.Delete != want[i].Delete {
			return fmt.Sprintf("heard %+v instead of %+v", e, want[i])
		}
		if bad := s.comparePrev(t, e); bad != "" {
			return bad
		}
	}
	if len(heard) < len(want) {
		return fmt.Sprintf("did not hear %+v, though later revisions or progress were heard", want[len(heard)])
	}
	return ""
}

// comparePrev: a previous value may be missing only when it may have been compacted.
func (s *Session) comparePrev(t *Timeline, e Event) string {
	if !s.Prev {
		if e.HasPrev {
			return fmt.Sprintf("got a previous value with %+v without asking", e)
		}
		return ""
	}
	want := t.At(e.Key, e.Revision-1)
	if e.Prev == want || (!e.HasPrev && e.Revision-1 < s.CompactedBefore) {
		return ""
	}
	return fmt.Sprintf("got %+v with previous value %+v instead of %+v", e, e.Prev, want)
}

// promisesKept: after a progress notice no event comes that it has promised away.
func (s *Session) promisesKept(t *Timeline) []string {
	var promised, last int64
	for _, n := range s.Notices {
		if len(n.Events) > 0 && n.Events[0].Revision == last {
			return []string{fmt.Sprintf("heard revision %d in two pieces", last)}
		}
		if len(n.Events) > 0 {
			last = n.Events[len(n.Events)-1].Revision
		}
		for _, e := range n.Events {
			if e.Revision <= promised {
				return []string{fmt.Sprintf("heard %+v after a progress notice of revision %d", e, promised)}
			}
			if e.Revision > n.Revision {
				return []string{fmt.Sprintf("heard %+v under a header of revision %d", e, n.Revision)}
			}
		}
		if n.Progress {
			promised = n.Revision
		}
	}
	return nil
}
