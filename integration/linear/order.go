package linear

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"time"
)

// CheckOrder compares every answer with the timeline, and the timeline with the clock.
func CheckOrder(h History, t *Timeline) []string {
	c := &orderCheck{history: h, timeline: t, acked: ackedRevisions(h)}
	c.attribute()
	c.checkReuse()
	c.causes()
	for _, o := range h.Operations {
		c.checkOperation(o)
	}
	c.checkMembers()
	return c.bad
}

type orderCheck struct {
	history  History
	timeline *Timeline
	acked    []mark          // by time: the largest revision that anyone knew of
	author   map[int64]int64 // revision -> when its author called, where there is one
	called   []int64         // by revision: the latest call of the authors so far
	bad      []string
}

// mark says that revision was known at a time.
type mark struct{ at, revision int64 }

func (c *orderCheck) report(format string, args ...any) {
	c.bad = append(c.bad, "order: "+fmt.Sprintf(format, args...))
}

// ackedRevisions is, for each time that somebody heard of a revision, the largest one heard of so far.
func ackedRevisions(h History) []mark {
	var marks []mark
	for _, o := range h.Operations {
		if o.Outcome == Done {
			marks = append(marks, mark{o.Return, o.Answer.Revision})
		}
	}
	for _, s := range h.Sessions {
		for _, n := range s.Notices {
			marks = append(marks, mark{n.At, n.Revision})
		}
	}
	slices.SortFunc(marks, func(a, b mark) int { return cmp.Compare(a.at, b.at) })
	for i := 1; i < len(marks); i++ {
		marks[i].revision = max(marks[i].revision, marks[i-1].revision)
	}
	return marks
}

// ackedBefore is the largest revision that anyone knew of before a time.
func (c *orderCheck) ackedBefore(at int64) int64 {
	i := sort.Search(len(c.acked), func(i int) bool { return c.acked[i].at >= at })
	if i == 0 {
		return 0
	}
	return c.acked[i-1].revision
}

// attribute finds for every event the request that caused it: nothing happens by itself, twice or in part.
func (c *orderCheck) attribute() {
	c.author = map[int64]int64{}
	writer := map[string]*Operation{}
	done := map[int64]*Operation{}
	for _, o := range c.history.Operations {
		for _, w := range o.Request.Writes {
			if !w.Delete {
				writer[w.Value] = o
			}
		}
		// A revoke that found no keys any more is told the revision of, perhaps, the very request that deleted them.
		if o.writes() && c.changed(o) && (o.Request.Revoke == 0 || done[o.Answer.Revision] == nil) {
			done[o.Answer.Revision] = o
		}
	}
	took := map[*Operation]int64{}
	for r := int64(firstRevision); r <= c.timeline.final; r++ {
		o := done[r]
		for _, e := range c.timeline.events[r] {
			if !e.Delete {
				o = writer[e.KV.Value]
			}
		}
		if o == nil {
			c.checkDeletion(r)
			continue
		}
		if before, ok := took[o]; ok {
			c.report("%s took effect at revision %d and again at %d", o, before, r)
		}
		took[o] = r
		c.author[r] = o.Call
		c.checkEffect(o, r)
	}
}

// changed tells whether an operation that is done says that it has changed something.
func (c *orderCheck) changed(o *Operation) bool {
	if o.Request.Revoke != 0 {
		want := c.endOfLease(o.Request.Revoke, o.Answer.Revision)
		got := c.timeline.events[o.Answer.Revision]
		return len(want) > 0 && slices.EqualFunc(want, got, func(a, b Event) bool { return a.Key == b.Key && b.Delete })
	}
	for i, w := range o.Request.Writes {
		if !w.Delete || (o.Answer.Prev != nil && o.Answer.Prev[i].Version > 0) {
			return o.Answer.Succeeded
		}
	}
	return false
}

// checkEffect: a request takes effect as a whole, at the revision that it was told, after everything it could know.
func (c *orderCheck) checkEffect(o *Operation, r int64) {
	want := c.effect(o, r)
	got := c.timeline.events[r]
	same := len(want) == len(got)
	for i := 0; same && i < len(want); i++ {
		same = want[i].Key == got[i].Key && want[i].Delete == got[i].Delete && want[i].KV.Value == got[i].KV.Value && want[i].KV.Lease == got[i].KV.Lease
	}
	if !same {
		c.report("%s should have done %+v at revision %d, where %+v happened", o, want, r, got)
	}
	for _, compare := range o.Request.Compares {
		if !compare.holds(c.timeline.At(compare.Key, r-1)) {
			c.report("%s took effect at revision %d, but %s was %+v", o, r, compare.Key, c.timeline.At(compare.Key, r-1))
		}
	}
	if o.Outcome == Refused {
		c.report("%s was refused, but took effect at revision %d", o, r)
	}
	if o.Outcome == Done && o.Answer.Revision != r {
		c.report("%s was told another revision than %d, at which it took effect", o, r)
	}
	if acked := c.ackedBefore(o.Call); acked >= r {
		c.report("%s took effect at revision %d, but revision %d was known before it was called", o, r, acked)
	}
}

// effect is what a request would do at a revision, in key order.
func (c *orderCheck) effect(o *Operation, r int64) []Event {
	var all []Event
	for _, w := range o.Request.Writes {
		if w.Delete && c.timeline.At(w.Key, r-1).Version == 0 {
			continue
		}
		all = append(all, Event{Key: w.Key, Delete: w.Delete, KV: KV{Value: w.Value, Lease: w.Lease}})
	}
	if o.Request.Revoke != 0 {
		all = append(all, c.endOfLease(o.Request.Revoke, r)...)
	}
	slices.SortFunc(all, func(a, b Event) int { return cmp.Compare(a.Key, b.Key) })
	return all
}

// endOfLease is what happens when a lease ends at a revision.
func (c *orderCheck) endOfLease(id, r int64) []Event {
	var all []Event
	for key := range c.timeline.states {
		if kv := c.timeline.At(key, r-1); kv.Version > 0 && kv.Lease == id {
			all = append(all, Event{Key: key, Delete: true})
		}
	}
	slices.SortFunc(all, func(a, b Event) int { return cmp.Compare(a.Key, b.Key) })
	return all
}

// checkDeletion: a revision that only deletes and that nobody was told of comes of a request with an unknown outcome or of
// a lease that ended.
func (c *orderCheck) checkDeletion(r int64) {
	got := c.timeline.events[r]
	if len(got) == 0 || c.unknownDeletion(r, got) {
		return
	}
	id := c.timeline.At(got[0].Key, r-1).Lease
	want := c.endOfLease(id, r)
	same := id != 0 && slices.EqualFunc(want, got, func(a, b Event) bool { return a.Key == b.Key })
	if !same {
		c.report("nobody asked for revision %d: %+v", r, got)
		return
	}
	c.checkLeaseEnd(id, r)
}

func (c *orderCheck) unknownDeletion(r int64, got []Event) bool {
	for _, o := range c.history.Operations {
		if o.Outcome != Unknown || o.Call > c.timeline.heard[r] || len(o.Request.Writes) == 0 || len(o.Request.Writes) != len(got) {
			continue
		}
		if slices.EqualFunc(c.effect(o, r), got, func(a, b Event) bool { return a.Key == b.Key && a.Delete == b.Delete }) {
			return true
		}
	}
	return false
}

// checkLeaseEnd: a lease lasts at least its time, unless somebody may have revoked it.
func (c *orderCheck) checkLeaseEnd(id, r int64) {
	for _, o := range c.history.Operations {
		if o.Request.Revoke == id && o.Outcome == Unknown {
			return
		}
	}
	for _, l := range c.history.Leases {
		if l.ID != id {
			continue
		}
		heard := c.timeline.heard[r]
		if heard < l.Call+int64(l.TTL) {
			c.report("lease %x ended at revision %d, %s after it was granted for %s", id, r, time.Duration(heard-l.Call), l.TTL)
		}
		for _, renewal := range l.Renewed {
			if renewal.TTL > 0 && heard < renewal.Call+int64(l.TTL) {
				c.report("lease %x ended at revision %d, heard of at %s, %s after it was renewed (asked at %s, told at %s) for %s",
					id, r, seconds(heard), time.Duration(heard-renewal.Call), seconds(renewal.Call), seconds(renewal.Return), l.TTL)
			}
		}
		return
	}
	c.report("revision %d ends lease %x, which nobody was granted", r, id)
}

// checkReuse: no two requests may be told that they took effect at the same revision. It needs no timeline.
func (c *orderCheck) checkReuse() {
	told := map[int64]*Operation{}
	for _, o := range c.history.Operations {
		puts := slices.ContainsFunc(o.Request.Writes, func(w Write) bool { return !w.Delete })
		if !o.writes() || !puts {
			continue
		}
		if other := told[o.Answer.Revision]; other != nil {
			c.report("one revision for two: %s and %s", o, other)
		}
		told[o.Answer.Revision] = o
	}
}

// causes is, for each revision, the latest call of those that made it and the ones before.
func (c *orderCheck) causes() {
	c.called = make([]int64, c.timeline.final+1)
	for r := int64(firstRevision); r <= c.timeline.final; r++ {
		c.called[r] = max(c.called[r-1], c.author[r])
	}
}

func (c *orderCheck) checkOperation(o *Operation) {
	if o.Outcome == Refused {
		c.checkRefusal(o)
	}
	if o.Outcome != Done {
		return
	}
	r := o.Answer.Revision
	if acked := c.ackedBefore(o.Call); !o.Request.Serializable && r < acked {
		c.report("%s: revision %d was known before it was called", o, acked)
	}
	if r > c.timeline.final {
		c.report("%s: the revision is beyond the last one, %d", o, c.timeline.final)
		return
	}
	if c.called[max(r, 0)] > o.Return {
		c.report("%s: saw a revision before it was asked for", o)
	}
	c.checkAnswer(o, r)
}

// checkAnswer compares what was read, compared and overwritten with the timeline.
func (c *orderCheck) checkAnswer(o *Operation, r int64) {
	q, base := o.Request, r
	if o.writes() && c.changed(o) {
		base = r - 1
		if events := c.timeline.events[r]; !slices.EqualFunc(c.effect(o, r), events, func(a, b Event) bool { return a.Key == b.Key && a.KV.Value == b.KV.Value }) {
			c.report("%s is not what happened at that revision: %+v", o, events)
		}
	}
	if q.Revision != 0 {
		base = q.Revision
	}
	if left := c.endOfLease(q.Revoke, r+1); q.Revoke != 0 && len(left) > 0 {
		c.report("%s: the lease still has keys: %v", o, left)
	}
	for i, kv := range o.Answer.Reads {
		if want := c.timeline.At(q.Reads[i], base); kv != want {
			c.report("%s: %s is %+v at revision %d", o, q.Reads[i], want, base)
		}
	}
	for i, kv := range o.Answer.Prev {
		if want := c.timeline.At(q.Writes[i].Key, base); kv != want {
			c.report("%s: %s was %+v at revision %d", o, q.Writes[i].Key, want, base)
		}
	}
	held := true
	for _, compare := range q.Compares {
		held = held && compare.holds(c.timeline.At(compare.Key, base))
	}
	if len(q.Compares) > 0 && held != o.Answer.Succeeded {
		c.report("%s: the comparison at revision %d is %v", o, base, held)
	}
}

// checkRefusal: a read of the past may be refused only when it is compacted or, at a member that is behind, not yet there.
func (c *orderCheck) checkRefusal(o *Operation) {
	at := o.Request.Revision
	if at == 0 || len(o.Request.Reads) == 0 {
		return
	}
	switch o.Answer.Failure {
	case failCompacted:
		if at >= o.CompactedBefore {
			c.report("%s: nobody had asked to compact more than %d", o, o.CompactedBefore)
		}
	case failFuture:
		if !o.Request.Serializable && at <= c.ackedBefore(o.Call) {
			c.report("%s: revision %d was known before", o, c.ackedBefore(o.Call))
		}
	}
}

// The texts of refusals that mean something to the checks.
const (
	failCompacted = "etcdserver: mvcc: required revision has been compacted"
	failFuture    = "etcdserver: mvcc: required revision is a future revision"
)

func (c Compare) holds(kv KV) bool { return holds(register{kv: kv}, c) }

// checkMembers: while a process lives, what it shows never goes back.
func (c *orderCheck) checkMembers() {
	type process struct{ member, life int }
	of := map[process][]*Operation{}
	for _, o := range c.history.Operations {
		if o.Outcome == Done && o.Life >= 0 {
			p := process{o.Member, o.Life}
			of[p] = append(of[p], o)
		}
	}
	for _, all := range of {
		ended := byReturn(all)
		began := slices.Clone(all)
		slices.SortStableFunc(began, func(a, b *Operation) int { return cmp.Compare(a.Call, b.Call) })
		var newest *Operation
		next := 0
		for _, o := range began {
			for ; next < len(ended) && ended[next].Return < o.Call; next++ {
				if newest == nil || ended[next].Answer.Revision > newest.Answer.Revision {
					newest = ended[next]
				}
			}
			if newest != nil && o.Answer.Revision < newest.Answer.Revision {
				c.report("%s is older than the same process showed before: %s", o, newest)
			}
		}
	}
}
