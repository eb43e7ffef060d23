package offline

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/raft/wal"
	"github.com/kvorum/kvorum/server/state"
)

// Position is the end of a member's log: the term and index of its last entry.
type Position struct {
	Term  uint64 `json:"term"`
	Index uint64 `json:"index"`
}

// String is the form that ParsePosition reads.
func (p Position) String() string { return fmt.Sprintf("%d/%d", p.Term, p.Index) }

// Compare orders positions as an election does: the later one is greater.
func (p Position) Compare(o Position) int {
	return cmp.Or(cmp.Compare(p.Term, o.Term), cmp.Compare(p.Index, o.Index))
}

// ParsePosition reads TERM/INDEX.
func ParsePosition(text string) (p Position, err error) {
	term, index, found := strings.Cut(text, "/")
	if !found {
		return p, fmt.Errorf("%q is not TERM/INDEX", text)
	}
	var bad [2]error
	p.Term, bad[0] = strconv.ParseUint(term, 10, 64)
	p.Index, bad[1] = strconv.ParseUint(index, 10, 64)
	if err := errors.Join(bad[:]...); err != nil {
		return p, fmt.Errorf("%q is not TERM/INDEX", text)
	}
	return p, nil
}

// Member is a member as the data of one of them knows it.
type Member struct {
	ID         uint64   `json:"id"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
	IsLearner  bool     `json:"isLearner"`
}

// Called is the member's name, or its ID if it has none yet.
func (m Member) Called() string {
	if m.Name != "" {
		return m.Name
	}
	return fmt.Sprintf("%x", m.ID)
}

// Standing is how far a survivor got, and whom it knows.
type Standing struct {
	Dir       Dir      `json:"-"`
	DataDir   string   `json:"dataDir"`
	Self      Member   `json:"self"`
	Cluster   uint64   `json:"cluster"`
	End       Position `json:"end"`
	Committed uint64   `json:"committedIndex"` // as noted; it may be late
	Members   []Member `json:"members"`        // as the database has them, this one too
}

// Rank reads how far a stopped member's log goes. It changes nothing. A
// directory with damage is refused, as Check tells it.
func Rank(d Dir) (Standing, error) {
	report, err := Check(d)
	if err != nil {
		return Standing{}, err
	}
	for _, p := range report.Problems {
		if p.Severity == Damage {
			return Standing{}, fmt.Errorf("%s is damaged: %s: %s; `kvctl check --data-dir %s` tells all", d.Data, p.File, p.What, d.Data)
		}
	}
	return d.standing()
}

func (d Dir) standing() (Standing, error) {
	in, err := wal.Inspect(wal.OS(), d.wal())
	if err != nil {
		return Standing{}, fmt.Errorf("read log: %w", err)
	}
	self, cluster, err := identity(in.Metadata)
	if err != nil {
		return Standing{}, err
	}
	s := Standing{Dir: d, DataDir: d.Data, Cluster: cluster, End: Position{in.LastTerm, in.LastIndex}, Committed: in.HardState.GetCommit()}
	s.Self.ID = self
	store, err := mvcc.OpenForLoad(d.db())
	if err != nil {
		return Standing{}, err
	}
	defer func() { _ = store.Close() }() // it was only read
	machine, err := state.New(store, state.Options{})
	if err != nil {
		return Standing{}, fmt.Errorf("read members: %w", err)
	}
	for _, m := range machine.Members() {
		s.Members = append(s.Members, memberOf(m))
		if uint64(m.ID) == self {
			s.Self = memberOf(m)
		}
	}
	return s, nil
}

func memberOf(m state.Member) Member {
	return Member{uint64(m.ID), m.Name, m.PeerURLs, m.ClientURLs, m.IsLearner}
}
