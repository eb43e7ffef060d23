package linear

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// small builds histories by hand. Each operation takes one tick, after the one before, unless the test moves it.
type small struct {
	h     History
	clock int64
}

func (s *small) add(o Operation) *Operation {
	if o.Call == 0 {
		s.clock += 2
		o.Call, o.Return = s.clock, s.clock+1
	}
	o.Life = 1
	s.h.Operations = append(s.h.Operations, &o)
	return &o
}

func (s *small) put(key, value string, revision int64, prev KV) *Operation {
	return s.add(Operation{Request: Request{Writes: []Write{{Key: key, Value: value}}}, Answer: Answer{Revision: revision, Succeeded: true, Prev: []KV{prev}}})
}

func (s *small) get(key string, revision int64, kv KV) *Operation {
	return s.add(Operation{Request: Request{Reads: []string{key}}, Answer: Answer{Revision: revision, Succeeded: true, Reads: []KV{kv}}})
}

func (s *small) unknown(r Request) *Operation {
	return s.add(Operation{Request: r, Outcome: Unknown})
}

func (s *small) cas(key, value string, version, revision int64, prev KV) *Operation {
	return s.add(Operation{Request: Request{Compares: []Compare{{Key: key, Target: OnVersion, Number: version}}, Writes: []Write{{Key: key, Value: value}}, Reads: []string{key}},
		Answer: Answer{Revision: revision, Succeeded: true, Prev: []KV{prev}}})
}

// watch is a watcher of everything that hears events one by one, long after they happened.
func (s *small) watch(from int64, events ...Event) *Session {
	w := &Session{Whole: true, From: from}
	for _, e := range events {
		s.clock += 2
		w.Notices = append(w.Notices, Notice{At: s.clock, Revision: e.Revision, Events: []Event{e}})
	}
	s.h.Sessions = append(s.h.Sessions, w)
	return w
}

func kv(value string, create, mod, version int64) KV {
	return KV{Value: value, Create: create, Mod: mod, Version: version}
}

func wrote(key string, k KV) Event { return Event{Key: key, Revision: k.Mod, KV: k} }

func deleted(key string, revision int64) Event {
	return Event{Key: key, Revision: revision, Delete: true}
}

var absent KV

// verdicts runs every check; the first word of each violation names the check.
func (s *small) verdicts() string {
	for _, e := range s.h.Sessions {
		for _, n := range e.Notices {
			for _, event := range n.Events {
				s.h.Final = max(s.h.Final, event.Revision)
			}
		}
	}
	timeline, _ := NewTimeline(s.h)
	var bad []string
	for _, v := range Judge(s.h, 10*time.Second).Violations {
		bad = append(bad, v.Text)
	}
	for _, t := range []*Timeline{nil, timeline} {
		if _, result, _ := CheckKeys(s.h, t, 10*time.Second); result != porcupine.Ok {
			bad = append(bad, fmt.Sprintf("keys: %s", result))
		}
	}
	return strings.Join(bad, "\n")
}

// rightHistory has every kind of operation and is correct.
func rightHistory() *small {
	s := &small{}
	a2, b3, a4 := kv("v1", 2, 2, 1), kv("v2", 3, 3, 1), kv("v3", 2, 4, 2)
	s.put("a", "v1", 2, absent)
	s.put("b", "v2", 3, absent)
	s.get("a", 3, a2)
	s.cas("a", "v3", 1, 4, a2)
	s.get("a", 4, a4)
	s.unknown(Request{Writes: []Write{{Key: "a", Value: "v4"}}})  // happens
	s.unknown(Request{Writes: []Write{{Key: "b", Value: "v5"}}})  // does not
	s.unknown(Request{Writes: []Write{{Key: "b", Delete: true}}}) // happens late
	s.add(Operation{Request: Request{Reads: []string{"b"}, Revision: 3}, Answer: Answer{Revision: 4, Succeeded: true, Reads: []KV{b3}}})
	s.get("a", 5, kv("v4", 2, 5, 3))
	s.get("b", 6, absent)
	s.add(Operation{Request: Request{Reads: []string{"a"}, Serializable: true}, Member: 1, Answer: Answer{Revision: 3, Succeeded: true, Reads: []KV{a2}}})
	events := []Event{wrote("a", a2), wrote("b", b3), wrote("a", a4), wrote("a", kv("v4", 2, 5, 3)), deleted("b", 6)}
	s.watch(1, events...)
	s.watch(4, events[2:]...)
	return s
}

// A checker that rejects what is right is switched off soon.
func TestRightHistoryPasses(t *testing.T) {
	if bad := rightHistory().verdicts(); bad != "" {
		t.Error(bad)
	}
}

// The revision of a revoke that found nothing is that of the request before it, which may have deleted the lease's key.
func TestRevokeAfterDeletionPasses(t *testing.T) {
	s := rightHistory()
	leased := kv("v9", 7, 7, 1)
	leased.Lease = 5
	s.h.Leases = append(s.h.Leases, &Lease{ID: 5, Call: 1, TTL: time.Second})
	s.add(Operation{Request: Request{Writes: []Write{{Key: "c", Value: "v9", Lease: 5}}}, Answer: Answer{Revision: 7, Succeeded: true, Prev: []KV{absent}}})
	s.add(Operation{Request: Request{Writes: []Write{{Key: "c", Delete: true}}}, Answer: Answer{Revision: 8, Succeeded: true, Prev: []KV{leased}}})
	s.add(Operation{Request: Request{Revoke: 5}, Answer: Answer{Revision: 8, Succeeded: true}})
	s.h.Sessions[0].Notices[len(s.h.Sessions[0].Notices)-1].At = s.clock + 2
	s.h.Sessions[0].hear(wrote("c", leased), deleted("c", 8))
	if bad := s.verdicts(); bad != "" {
		t.Error(bad)
	}
}

// A checker that accepts everything proves nothing: each of these histories has one thing wrong, and the check named must
// find it.
func TestWrongHistoriesAreRejected(t *testing.T) {
	for _, c := range []struct {
		name string
		by   string // how the violation must be reported
		make func(s *small)
	}{
		{"stale read", "keys: Illegal", func(s *small) { s.get("a", 4, kv("v3", 2, 4, 2)) }},
		{"stale read of another key's past", "was known before it was called", func(s *small) { s.get("c", 4, absent) }},
		{"read of what never was", "keys: Illegal", func(s *small) { s.get("a", 6, kv("vx", 2, 5, 3)) }},
		{"read from the future", "saw a revision before it was asked for", func(s *small) {
			o := s.get("b", 3, kv("v2", 3, 3, 1))
			o.Call, o.Return, o.Request.Serializable = 1, 3, true
		}},
		{"wrong version", "keys: Illegal", func(s *small) { s.get("a", 6, kv("v4", 2, 5, 4)) }},
		{"wrong mod revision", "keys: Illegal", func(s *small) { s.get("a", 6, kv("v4", 2, 6, 3)) }},
		{"wrong create revision", "keys: Illegal", func(s *small) { s.get("a", 6, kv("v4", 3, 5, 3)) }},
		{"lost update", "keys: Illegal", func(s *small) { s.cas("a", "v9", 2, 7, kv("v3", 2, 4, 2)) }},
		{"lost put", "is not what happened", func(s *small) { s.put("c", "v9", 6, absent) }},
		{"put beyond the end", "beyond the last one", func(s *small) { s.put("c", "v9", 7, absent) }},
		{"revision used twice", "one revision for two", func(s *small) { s.put("c", "v9", 4, absent) }},
		{"revision goes back", "known before it was called", func(s *small) {
			s.put("c", "v9", 7, absent)
			s.put("d", "v10", 3, absent)
		}},
		{"wrong comparison", "the comparison at revision 6 is true", func(s *small) {
			s.add(Operation{Request: Request{Compares: []Compare{{Key: "a", Target: OnMod, Number: 5}}, Writes: []Write{{Key: "a", Value: "v9"}}, Reads: []string{"a"}},
				Answer: Answer{Revision: 6, Reads: []KV{kv("v4", 2, 5, 3)}}})
		}},
		{"serializable read of what never was", "is {Value:v3", func(s *small) {
			s.add(Operation{Request: Request{Reads: []string{"a"}, Serializable: true}, Answer: Answer{Revision: 4, Succeeded: true, Reads: []KV{kv("v1", 2, 2, 1)}}})
		}},
		{"a member goes back", "older than the same process showed before", func(s *small) {
			s.add(Operation{Request: Request{Reads: []string{"a"}, Serializable: true}, Answer: Answer{Revision: 3, Succeeded: true, Reads: []KV{kv("v1", 2, 2, 1)}}})
		}},
		{"compacted without being asked", "nobody had asked to compact", func(s *small) {
			s.add(Operation{Request: Request{Reads: []string{"a"}, Revision: 3}, Outcome: Refused, Answer: Answer{Failure: failCompacted}, CompactedBefore: 2})
		}},
		{"known revision called future", "was known before", func(s *small) {
			s.add(Operation{Request: Request{Reads: []string{"a"}, Revision: 3}, Outcome: Refused, Answer: Answer{Failure: failFuture}})
		}},
		{"refused but done", "was refused, but took effect", func(s *small) { s.h.Operations[5].Outcome = Refused }},
		{"a put done twice", "took effect at revision 5 and again at 7", func(s *small) {
			s.h.Sessions[0].hear(wrote("a", kv("v4", 2, 7, 4)))
		}},
		{"half a transaction", "should have done", func(s *small) {
			s.unknown(Request{Compares: []Compare{{Key: "a", Target: OnVersion, Number: 3}}, Writes: []Write{{Key: "c", Value: "v9"}, {Key: "d", Value: "v10"}}}).Call = 20
			s.h.Sessions[0].hear(wrote("c", kv("v9", 7, 7, 1)))
		}},
		{"a deletion that nobody asked for", "nobody asked for revision 7", func(s *small) { s.h.Sessions[0].hear(deleted("a", 7)) }},
		{"a lease ends early", "after it was granted for", func(s *small) {
			leased := kv("v9", 7, 7, 1)
			leased.Lease = 5
			s.h.Leases = append(s.h.Leases, &Lease{ID: 5, Call: 1, TTL: time.Second})
			s.add(Operation{Request: Request{Writes: []Write{{Key: "c", Value: "v9", Lease: 5}}}, Answer: Answer{Revision: 7, Succeeded: true, Prev: []KV{absent}}})
			s.h.Sessions[0].hear(wrote("c", leased), deleted("c", 8))
		}},
		{"a revoked lease's key stays", "the lease still has keys", func(s *small) {
			leased := kv("v9", 7, 7, 1)
			leased.Lease = 5
			s.h.Leases = append(s.h.Leases, &Lease{ID: 5, Call: 1, TTL: time.Second})
			s.add(Operation{Request: Request{Writes: []Write{{Key: "c", Value: "v9", Lease: 5}}}, Answer: Answer{Revision: 7, Succeeded: true, Prev: []KV{absent}}})
			s.add(Operation{Request: Request{Revoke: 5}, Answer: Answer{Revision: 7, Succeeded: true}})
			s.h.Sessions[0].hear(wrote("c", leased))
		}},
		{"watch gap", "did not hear {Key:a Revision:4", func(s *small) {
			n := s.h.Sessions[0].Notices
			s.watch(2, n[0].Events[0], n[1].Events[0], n[3].Events[0])
		}},
		{"watch gap for all", "no watcher of everything heard revision 3", func(s *small) {
			s.h.Sessions[0].Notices = append(s.h.Sessions[0].Notices[:1:1], s.h.Sessions[0].Notices[2:]...)
		}},
		{"watch repeat", "twice", func(s *small) {
			e := s.h.Sessions[1].Notices[0].Events[0]
			s.watch(4, e, e)
		}},
		{"watch out of order", "after 5", func(s *small) {
			n := s.h.Sessions[0].Notices
			s.watch(4, n[3].Events[0], n[2].Events[0])
		}},
		{"watch from before its start", "which did not happen", func(s *small) {
			s.watch(4, s.h.Sessions[0].Notices[1].Events[0])
		}},
		{"watchers disagree", "watchers disagree about revision 5", func(s *small) { s.watch(5, wrote("a", kv("vx", 2, 5, 3))) }},
		{"wrong previous value", "with previous value", func(s *small) {
			e := s.h.Sessions[0].Notices[2].Events[0]
			e.HasPrev, e.Prev = true, kv("v0", 2, 2, 1)
			s.watch(4, e).Prev = true
		}},
		{"progress promised too much", "did not hear", func(s *small) {
			w := s.watch(2, s.h.Sessions[0].Notices[0].Events[0])
			w.Notices = append(w.Notices, Notice{At: s.clock, Revision: 4, Progress: true})
		}},
		{"event after its progress notice", "after a progress notice", func(s *small) {
			w := s.watch(2, s.h.Sessions[0].Notices[0].Events[0])
			w.Notices = append([]Notice{{At: s.clock, Revision: 2, Progress: true}}, w.Notices...)
		}},
		{"canceled as compacted without being asked", "nobody had asked for more", func(s *small) {
			w := s.watch(2)
			w.CompactRevision = 3
		}},
		{"a revision in two pieces", "in two pieces", func(s *small) {
			c, d := wrote("c", kv("v9", 7, 7, 1)), wrote("d", kv("v10", 7, 7, 1))
			s.add(Operation{Request: Request{Writes: []Write{{Key: "c", Value: "v9"}, {Key: "d", Value: "v10"}}}, Answer: Answer{Revision: 7, Succeeded: true, Prev: []KV{absent, absent}}})
			s.watch(7, c, d)
		}},
		{"a renewed lease ends early", "after it was renewed", func(s *small) {
			leased := kv("v9", 7, 7, 1)
			leased.Lease = 5
			s.h.Leases = append(s.h.Leases, &Lease{ID: 5, Call: 1, TTL: 20, Renewed: []Renewal{{Call: 40, Return: 41, TTL: 2}}})
			s.add(Operation{Request: Request{Writes: []Write{{Key: "c", Value: "v9", Lease: 5}}}, Answer: Answer{Revision: 7, Succeeded: true, Prev: []KV{absent}}})
			s.clock += 10
			s.h.Sessions[0].Notices[len(s.h.Sessions[0].Notices)-1].At = s.clock
			s.h.Sessions[0].hear(wrote("c", leased), deleted("c", 8))
		}},
		{"a lease that is kept alive is gone", "was no more at", func(s *small) {
			s.h.Leases = append(s.h.Leases, &Lease{ID: 5, Call: 1, TTL: 20, Renewed: []Renewal{{Call: 10, Return: 11, TTL: 2}, {Call: 25, Return: 26}}})
		}},
		{"two holders of one lock", "both had", func(s *small) {
			s.h.Holds = []Hold{{Client: 1, Lock: "x", From: 1, Until: 10}, {Client: 2, Lock: "x", From: 9, Until: 12}}
		}},
		{"money is made", "do not add up", func(s *small) {
			s.add(Operation{Request: Request{Reads: []string{"bank0/0", "bank0/1", "bank0/2", "bank0/3"}, Serializable: true},
				Answer: Answer{Revision: 6, Reads: []KV{kv("100#1", 3, 3, 1), kv("100#2", 3, 3, 1), kv("100#3", 3, 3, 1), kv("120#4", 3, 5, 2)}}})
		}},
		{"an appended element is lost", "was \"1,2,\", and then", func(s *small) {
			s.put("list0", "1,", 7, absent)
			s.put("list0", "1,2,", 8, kv("1,", 7, 7, 1))
			s.put("list0", "1,3,4,", 9, kv("1,2,", 7, 8, 2))
		}},
		{"canceled as compacted without need", "which it did not need", func(s *small) {
			w := s.watch(3)
			w.CompactRevision, w.CompactedBefore = 3, 3
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := rightHistory()
			c.make(s)
			if got := s.verdicts(); !strings.Contains(got, c.by) {
				t.Errorf("must be rejected with %q, got:\n%s", c.by, got)
			}
		})
	}
}

// hear adds events to the end of a session.
func (s *Session) hear(events ...Event) {
	for _, e := range events {
		s.Notices = append(s.Notices, Notice{At: s.Notices[len(s.Notices)-1].At + 2, Revision: e.Revision, Events: []Event{e}})
	}
}

// A timed-out write may take effect much later. A checker that did not know would report violations that are none, or,
// worse, allow a write to come and go.
func TestUnknownOutcomes(t *testing.T) {
	late := func(reads ...KV) porcupine.CheckResult {
		s := &small{}
		s.put("a", "v1", 2, absent)
		s.unknown(Request{Writes: []Write{{Key: "a", Value: "v2"}}})
		for _, r := range reads {
			s.get("a", r.Mod, r)
		}
		_, result, _ := CheckKeys(s.h, nil, 10*time.Second)
		return result
	}
	before, after := kv("v1", 2, 2, 1), kv("v2", 2, 3, 2)
	for _, c := range []struct {
		name  string
		reads []KV
		want  porcupine.CheckResult
	}{
		{"never", []KV{before, before}, porcupine.Ok},
		{"at once", []KV{after, after}, porcupine.Ok},
		{"late", []KV{before, before, after}, porcupine.Ok},
		{"come and gone", []KV{after, before}, porcupine.Illegal},
		{"twice", []KV{after, kv("v2", 2, 4, 3)}, porcupine.Illegal},
	} {
		if got := late(c.reads...); got != c.want {
			t.Errorf("%s: %s instead of %s", c.name, got, c.want)
		}
	}
}

// Without a picture nobody understands a violation.
func TestViolationIsVisualised(t *testing.T) {
	s := rightHistory()
	s.get("a", 4, kv("v3", 2, 4, 2))
	model, result, info := CheckKeys(s.h, nil, 10*time.Second)
	path := filepath.Join(t.TempDir(), "linearization.html")
	if err := porcupine.VisualizePath(model, info, path); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(path)
	if err != nil || result != porcupine.Illegal || !strings.Contains(string(page), "read [a]") {
		t.Errorf("result %s, page of %d bytes, %v", result, len(page), err)
	}
}

// A violation that comes with no faults like those before it cannot be looked for again.
func TestFaultsFollowFromTheSeed(t *testing.T) {
	draw := func(seed uint64, used int) string {
		f := injector{seed: seed}
		var all []string
		for n := range uint64(40) {
			all = append(all, f.draw(n).name, fmt.Sprint(f.random.Uint64()))
			for range used {
				f.random.Uint64() // a fault that took another way
			}
		}
		return strings.Join(all, ",")
	}
	if a, b := draw(7, 0), draw(7, 3); a != b {
		t.Errorf("one seed, two schedules:\n%s\n%s", a, b)
	}
	if draw(7, 0) == draw(8, 0) {
		t.Error("two seeds, one schedule")
	}
}

// A cluster that nobody can use for seconds would look healthy in the figures.
func TestGapsAreCounted(t *testing.T) {
	s := &small{}
	for _, at := range []float64{0.5, 1.2, 3.7, 4.1, 4.2} {
		s.add(Operation{Call: 1, Return: int64(at * float64(time.Second))})
	}
	s.add(Operation{Call: 1, Return: int64(2 * time.Second), Request: Request{Serializable: true}})
	f := FiguresOf(s.h)
	if f.Unavailable != 2.5 || f.UnavailableMax != 2.5 || f.Done != 6 || f.Seconds != 4.2 {
		t.Errorf("%+v", f)
	}
}
