package linear

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// register is the state of one key between two operations. It is compared with ==.
type register struct {
	kv KV
	// The store's revision is at least this. Invariant: kv.Mod <= at.
	at int64
	// The key was written by a request that nobody has an answer of: kv.Mod, and kv.Create of a new key, are not known
	// yet; they are beyond at-1.
	hidden bool
}

// keyInput is the part of an operation that concerns one key.
type keyInput struct {
	key      string
	compares []Compare
	write    *Write
	revoke   int64
	others   bool // the operation concerns other keys too, so whether it succeeded does not follow from this one
	op       *Operation
}

// keyOutput is what is known of the outcome.
type keyOutput struct {
	known      bool
	succeeded  bool
	revision   int64
	read, prev *KV
}

// CheckKeys searches for a linearization of each key. The result is porcupine's; the info is for its visualisation. A
// timeline without violations makes the search short: what is not in it has not happened while anyone could have seen it.
// Without one (nil) every request with an unknown outcome may have taken effect at any time.
func CheckKeys(h History, t *Timeline, limit time.Duration) (porcupine.Model, porcupine.CheckResult, porcupine.LinearizationInfo) {
	model := keyModel()
	result, info := porcupine.CheckOperationsVerbose(model, keyOperations(h, t), limit)
	return model, result, info
}

func keyModel() porcupine.Model {
	return porcupine.Model{
		Partition: partition,
		Init:      func() any { return register{} },
		Step: func(state, input, output any) (bool, any) {
			return step(state.(register), input.(keyInput), output.(keyOutput))
		},
		DescribeOperation: func(input, output any) string {
			in, out := input.(keyInput), output.(keyOutput)
			return fmt.Sprintf("%s: %s", in.key, in.op.Request) + describeOutput(out)
		},
		DescribeState: func(state any) string {
			s := state.(register)
			return fmt.Sprintf("%+v at %d hidden %v", s.kv, s.at, s.hidden)
		},
	}
}

func describeOutput(o keyOutput) string {
	if !o.known {
		return " -> unknown"
	}
	s := fmt.Sprintf(" -> revision %d succeeded %v", o.revision, o.succeeded)
	if o.read != nil {
		s += fmt.Sprintf(" read %+v", *o.read)
	}
	if o.prev != nil {
		s += fmt.Sprintf(" prev %+v", *o.prev)
	}
	return s
}

// step is the sequential specification of one key.
func step(s register, in keyInput, out keyOutput) (bool, register) {
	if !out.known {
		return true, stepUnknown(s, in)
	}
	if out.revision < s.at {
		return false, s
	}
	if in.write == nil && in.revoke == 0 || in.revoke == 0 && !out.succeeded {
		return stepRead(s, in, out)
	}
	for _, c := range in.compares {
		if !holds(s, c) {
			return false, s
		}
	}
	if out.prev != nil && !s.sees(*out.prev, out.revision-1) {
		return false, s
	}
	if !changes(s, in) {
		s.at = out.revision
		return true, s
	}
	if out.revision <= s.at {
		return false, s
	}
	return true, s.after(in, out.revision)
}

// stepRead is an operation that changes nothing.
func stepRead(s register, in keyInput, out keyOutput) (bool, register) {
	if len(in.compares) > 0 {
		all := true
		for _, c := range in.compares {
			all = all && holds(s, c)
		}
		if (out.succeeded && !all) || (!out.succeeded && all && !in.others) {
			return false, s
		}
	}
	if out.read != nil {
		if !s.sees(*out.read, out.revision) {
			return false, s
		}
		s.kv, s.hidden = *out.read, false
	}
	s.at = out.revision
	return true, s
}

// stepUnknown takes effect as if answered, but gives no revision away. One that never took effect stands at the end.
func stepUnknown(s register, in keyInput) register {
	for _, c := range in.compares {
		if !holds(s, c) {
			return s
		}
	}
	if !changes(s, in) {
		return s
	}
	next := s.after(in, s.at+1)
	next.hidden = next.kv.Version > 0
	return next
}

// sees tells whether an answer at a revision may show the key as kv.
func (s register) sees(kv KV, revision int64) bool {
	if !s.hidden {
		return s.kv == kv
	}
	want := s.kv
	want.Mod = kv.Mod
	if want.Version == 1 {
		want.Create = kv.Mod
	} else if s.kv.Create == 0 {
		want.Create = kv.Create
	}
	return kv == want && kv.Mod >= s.kv.Mod && kv.Mod <= revision
}

// holds decides a compare. A hidden revision equals no number that a client knows: who knows it has seen the write.
func holds(s register, c Compare) bool {
	switch c.Target {
	case OnValue:
		return s.kv.Version > 0 && s.kv.Value == c.Value
	case OnVersion:
		return s.kv.Version == c.Number
	}
	return !s.hidden && s.kv.Mod == c.Number
}

func changes(s register, in keyInput) bool {
	if in.revoke != 0 {
		return s.kv.Version > 0 && s.kv.Lease == in.revoke
	}
	return !in.write.Delete || s.kv.Version > 0
}

func (s register) after(in keyInput, revision int64) register {
	if in.revoke != 0 || in.write.Delete {
		return register{at: revision}
	}
	create := s.kv.Create
	if s.kv.Version == 0 {
		create = revision
	} else if s.hidden {
		create = 0
	}
	return register{at: revision, kv: KV{Value: in.write.Value, Lease: in.write.Lease, Create: create, Mod: revision, Version: s.kv.Version + 1}}
}

func partition(all []porcupine.Operation) [][]porcupine.Operation {
	byKey := map[string][]porcupine.Operation{}
	var keys []string
	for _, o := range all {
		key := o.Input.(keyInput).key
		if byKey[key] == nil {
			keys = append(keys, key)
		}
		byKey[key] = append(byKey[key], o)
	}
	slices.Sort(keys)
	var parts [][]porcupine.Operation
	for _, key := range keys {
		parts = append(parts, byKey[key])
	}
	return parts
}

// keyOperations takes the history apart by keys. Serializable reads and reads of the past promise nothing here.
func keyOperations(h History, t *Timeline) []porcupine.Operation {
	var all []porcupine.Operation
	seen := sightings(h)
	leased := leasedKeys(h)
	for _, o := range h.Operations {
		if o.Outcome == Refused || o.Request.Serializable || o.Request.Revision != 0 {
			continue
		}
		for _, part := range o.parts(leased) {
			if p, ok := part.operation(seen); ok && !t.excludes(p) {
				all = append(all, p)
			}
		}
	}
	for _, l := range h.Leases {
		for _, key := range leased[l.ID] {
			expiry := &Operation{Client: expiryClient, Call: l.Call + int64(l.TTL), Return: Never, Outcome: Unknown, Request: Request{Revoke: l.ID}}
			if p, _ := (keyInput{key: key, revoke: l.ID, op: expiry}).operation(seen); !t.excludes(p) {
				all = append(all, p)
			}
		}
	}
	return all
}

// excludes tells that an unknown outcome is known after all: the request has had no effect up to the end of the timeline.
func (t *Timeline) excludes(p porcupine.Operation) bool {
	in := p.Input.(keyInput)
	if t == nil || p.Output.(keyOutput).known {
		return false
	}
	if in.write != nil && !in.write.Delete {
		return true // its value would have been seen
	}
	for _, kv := range t.states[in.key] {
		if kv.Version == 0 && t.heard[kv.Mod] > p.Call && (in.revoke == 0 || t.At(in.key, kv.Mod-1).Lease == in.revoke) {
			return false
		}
	}
	return true
}

// expiryClient stands for the cluster, which ends leases by itself.
const expiryClient = 99

// parts are the keys that an operation concerns.
func (o *Operation) parts(leased map[int64][]string) []keyInput {
	r := o.Request
	keys := slices.Clone(r.Reads)
	for _, w := range r.Writes {
		keys = append(keys, w.Key)
	}
	for _, c := range r.Compares {
		keys = append(keys, c.Key)
	}
	if r.Revoke != 0 {
		keys = leased[r.Revoke]
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	var parts []keyInput
	for _, key := range keys {
		part := keyInput{key: key, op: o, revoke: r.Revoke}
		for i := range r.Writes {
			if r.Writes[i].Key == key {
				part.write = &r.Writes[i]
			}
		}
		for _, c := range r.Compares {
			if c.Key == key {
				part.compares = append(part.compares, c)
			} else {
				part.others = true
			}
		}
		parts = append(parts, part)
	}
	return parts
}

// operation is the part as porcupine wants it; not ok: it says nothing.
func (in keyInput) operation(seen map[string]sighting) (porcupine.Operation, bool) {
	o := in.op
	p := porcupine.Operation{ClientId: o.Client, Input: in, Call: o.Call, Return: o.Return}
	if o.Outcome == Unknown {
		p.Return = Never
		p.Output = keyOutput{}
		if in.write == nil && in.revoke == 0 {
			return p, false
		}
		// A write that somebody saw did happen, at the revision that was seen, before it was seen.
		for _, w := range o.Request.Writes {
			if s, ok := seen[w.Value]; ok && !w.Delete {
				p.Output = keyOutput{known: true, succeeded: true, revision: s.revision}
				p.Return = max(o.Call, s.at)
			}
		}
		return p, true
	}
	out := keyOutput{known: true, succeeded: o.Answer.Succeeded, revision: o.Answer.Revision}
	for i, key := range o.Request.Reads {
		if key == in.key && o.Answer.Reads != nil {
			out.read = &o.Answer.Reads[i]
		}
	}
	for i := range o.Request.Writes {
		if o.Request.Writes[i].Key == in.key && o.Answer.Prev != nil {
			out.prev = &o.Answer.Prev[i]
		}
	}
	p.Output = out
	return p, true
}

// sighting is the first time that anybody heard of a value, and the revision that it had.
type sighting struct{ revision, at int64 }

func sightings(h History) map[string]sighting {
	seen := map[string]sighting{}
	note := func(kv KV, at int64) {
		if kv.Version == 0 {
			return
		}
		if s, ok := seen[kv.Value]; !ok || at < s.at {
			seen[kv.Value] = sighting{kv.Mod, at}
		}
	}
	for _, o := range h.Operations {
		for _, kv := range slices.Concat(o.Answer.Reads, o.Answer.Prev) {
			note(kv, o.Return)
		}
	}
	for _, s := range h.Sessions {
		for _, n := range s.Notices {
			for _, e := range n.Events {
				note(e.KV, n.At)
				note(e.Prev, n.At)
			}
		}
	}
	return seen
}

// leasedKeys are the keys that may ever have been attached to each lease.
func leasedKeys(h History) map[int64][]string {
	leased := map[int64][]string{}
	for _, o := range h.Operations {
		for _, w := range o.Request.Writes {
			if w.Lease != 0 && !slices.Contains(leased[w.Lease], w.Key) {
				leased[w.Lease] = append(leased[w.Lease], w.Key)
			}
		}
	}
	return leased
}

// byReturn orders operations by the end.
func byReturn(all []*Operation) []*Operation {
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, func(a, b *Operation) int { return cmp.Compare(a.Return, b.Return) })
	return sorted
}
