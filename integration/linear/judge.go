package linear

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// Violation is something that must not be, and the check that has found it.
type Violation struct{ Check, Text string }

// Verdict is what the checks say of a history.
type Verdict struct {
	Violations []Violation
	Undecided  bool // the search for an order of a key's operations took too long
	Model      porcupine.Model
	Order      porcupine.LinearizationInfo // for a picture
}

// Judge runs all checks. The search for the order of each key's operations may take as long as limit.
func Judge(h History, limit time.Duration) Verdict {
	var v Verdict
	timeline, bad := NewTimeline(h)
	v.add("timeline", bad)
	known := timeline
	if len(bad) > 0 {
		known = nil
	}
	v.add("watches", CheckWatches(h, timeline))
	v.add("order", CheckOrder(h, timeline))
	v.add("bank", CheckBank(h, timeline))
	v.add("lists", CheckLists(h))
	v.add("locks", CheckLocks(h))
	var result porcupine.CheckResult
	v.Model, result, v.Order = CheckKeys(h, known, limit)
	switch {
	case result == porcupine.Illegal:
		v.add("keys", []string{"porcupine finds no order of the operations of a key"})
	case result == porcupine.Unknown && len(v.Violations) == 0:
		v.Undecided = true
	}
	return v
}

func (v *Verdict) add(check string, bad []string) {
	for _, text := range bad {
		v.Violations = append(v.Violations, Violation{check, text})
	}
}

// Checks are the names of the checks that found something, in alphabetical order.
func (v *Verdict) Checks() []string {
	var names []string
	for _, violation := range v.Violations {
		names = append(names, violation.Check)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Figures are what a run came to.
type Figures struct {
	Runs                   int
	Seconds                float64
	Done, Refused, Unknown int
	Revisions              int64
	Sessions, Canceled     int // watches, and those canceled by compaction
	Notices                int // answers on them
	Holds, Renewals        int // of locks; answered keep-alives
	Snapshots              int // installed by members that were away too long
	Unavailable            float64
	UnavailableMax         float64
	Gaps                   []Gap // of the last run
	Violations             int
	Undecided              int
	Faults                 map[string]int
}

// Gap is a time in which nobody was answered.
type Gap struct{ From, To int64 }

// gapMin is from when on a time without an answer counts as one in which the cluster was not available.
const gapMin = time.Second

// FiguresOf counts what a history holds. A second counts as unavailable when it is part of a gap of more than gapMin in
// which no request that needs a quorum was answered.
func FiguresOf(h History) Figures {
	f := Figures{Runs: 1, Revisions: h.Final, Sessions: len(h.Sessions), Holds: len(h.Holds)}
	var answered []int64
	for _, o := range h.Operations {
		switch o.Outcome {
		case Done:
			f.Done++
			if !o.Request.Serializable {
				answered = append(answered, o.Return)
			}
		case Refused:
			f.Refused++
		case Unknown:
			f.Unknown++
		}
	}
	for _, s := range h.Sessions {
		f.Notices += len(s.Notices)
		if s.CompactRevision != 0 {
			f.Canceled++
		}
	}
	for _, l := range h.Leases {
		f.Renewals += len(l.Renewed)
	}
	f.addGaps(answered)
	return f
}

func (f *Figures) addGaps(answered []int64) {
	slices.Sort(answered)
	before := int64(0)
	for _, at := range answered {
		if gap := time.Duration(at - before); gap > gapMin {
			f.Unavailable += gap.Seconds()
			f.UnavailableMax = max(f.UnavailableMax, gap.Seconds())
			f.Gaps = append(f.Gaps, Gap{before, at})
		}
		before = at
	}
	f.Seconds = time.Duration(before).Seconds()
}

// Add makes the figures those of both.
func (f *Figures) Add(g Figures) {
	f.Runs += g.Runs
	f.Seconds += g.Seconds
	f.Done, f.Refused, f.Unknown = f.Done+g.Done, f.Refused+g.Refused, f.Unknown+g.Unknown
	f.Revisions += g.Revisions
	f.Sessions, f.Canceled, f.Notices = f.Sessions+g.Sessions, f.Canceled+g.Canceled, f.Notices+g.Notices
	f.Holds, f.Renewals = f.Holds+g.Holds, f.Renewals+g.Renewals
	f.Snapshots += g.Snapshots
	f.Unavailable += g.Unavailable
	f.UnavailableMax = max(f.UnavailableMax, g.UnavailableMax)
	f.Violations += g.Violations
	f.Undecided += g.Undecided
	f.Gaps = g.Gaps
	if f.Faults == nil {
		f.Faults = map[string]int{}
	}
	for name, n := range g.Faults {
		f.Faults[name] += n
	}
}

// String is one figure per line.
func (f Figures) String() string {
	faults, sum := "", 0
	names := make([]string, 0, len(f.Faults))
	for name := range f.Faults {
		names = append(names, name)
		sum += f.Faults[name]
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(f.Faults[b]-f.Faults[a], cmp.Compare(a, b)) })
	for _, name := range names {
		faults += fmt.Sprintf("\n  %6d %s", f.Faults[name], name)
	}
	return fmt.Sprintf(`linearizability
  %6d seeds, %.0f s
  %6d operations answered, %d refused, %d of unknown outcome
  %6d revisions; %d watches with %d answers, %d canceled by compaction
  %6d locks held, %d keep-alives answered; %d snapshots installed
  %6.1f s unavailable (gaps of more than %s without an answer), the longest %.1f s
  %6d violations, %d undecided
  %6d faults%s
`, f.Runs, f.Seconds, f.Done, f.Refused, f.Unknown, f.Revisions, f.Sessions, f.Notices, f.Canceled,
		f.Holds, f.Renewals, f.Snapshots, f.Unavailable, gapMin, f.UnavailableMax, f.Violations, f.Undecided, sum, faults)
}
