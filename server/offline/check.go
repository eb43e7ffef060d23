package offline

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/raft/wal"
	"github.com/kvorum/kvorum/server/state"
)

// Severity says what a problem means for the member.
type Severity string

// The severities: with damage a member must not start; a warning is told so
// that nobody wonders.
const (
	Damage  Severity = "damage"
	Warning Severity = "warning"
)

// Problem is one thing that is wrong, and what to do.
type Problem struct {
	Severity Severity `json:"severity"`
	File     string   `json:"file"`
	Offset   *int64   `json:"offset,omitempty"` // in the file, if it has one place
	Key      []byte   `json:"key,omitempty"`    // that it concerns, if known
	What     string   `json:"problem"`
	Advice   string   `json:"advice"`
}

// LogReport is what the write-ahead log holds.
type LogReport struct {
	Segments  int    `json:"segments"`
	First     uint64 `json:"firstIndex"`
	Last      uint64 `json:"lastIndex"`
	LastTerm  uint64 `json:"lastTerm"`
	Committed uint64 `json:"committedIndex"` // as last noted; it may be late
	Term      uint64 `json:"term"`
}

// DatabaseReport is what the database holds.
type DatabaseReport struct {
	Bytes           int64  `json:"bytes"`
	Revision        int64  `json:"revision"`
	CompactRevision int64  `json:"compactRevision"`
	Keys            int    `json:"keys"`
	Records         int    `json:"records"`
	Leases          int    `json:"leases"`
	Applied         uint64 `json:"appliedIndex"`
}

// Report is the result of a Check.
type Report struct {
	DataDir  string         `json:"dataDir"`
	Sound    bool           `json:"sound"` // no damage
	Member   string         `json:"member"`
	Name     string         `json:"name"`
	Cluster  string         `json:"cluster"`
	Log      LogReport      `json:"log"`
	Database DatabaseReport `json:"database"`
	Problems []Problem      `json:"problems"`
}

// The advices. NAME and DIR stand for the member's.
const (
	adviceRebuild = "Do not start this member on this folder. If the others have a quorum, rebuild it from them: `kvctl member rejoin NAME --data-dir DIR --endpoints <a healthy member>`. " +
		"If they have not: `kvctl recover` on the best member that is sound."
	adviceLog = adviceRebuild + " If nothing else is left, the database may still be sound up to its applied index: `kvctl snapshot restore DIR/member/snap/db --skip-hash-check` makes a new cluster of it."
	adviceDB  = adviceRebuild + " If nothing else is left, restore the last backup: `kvctl snapshot restore`."
	adviceSet = adviceRebuild + " Files of different times were mixed: if a copy was restored by hand, restore the whole folder from one time."
	adviceRun = "Nothing to do: the next start sees to it."
)

// checker collects what is wrong with one directory.
type checker struct {
	dir    Dir
	report Report
	log    wal.Inspection
	start  wal.Snapshot
	db     mvcc.Report
}

// Check examines the data of a stopped member: all segments of the log, the
// snapshot files, the database with its index, leases, users and members, and
// whether they fit together. An error means that it could not examine them.
func Check(d Dir) (Report, error) {
	unlock, err := d.lock()
	if err != nil {
		return Report{}, err
	}
	defer unlock()
	c := checker{dir: d, report: Report{DataDir: d.Data, Problems: []Problem{}}}
	for _, step := range []struct {
		what string
		do   func() error
	}{{"log", c.checkLog}, {"snapshot files", c.checkSnapFiles}, {"database", c.checkDatabase}} {
		if err := step.do(); err != nil {
			return Report{}, fmt.Errorf("check %s: %w", step.what, err)
		}
	}
	c.nameIt()
	c.report.Sound = !slices.ContainsFunc(c.report.Problems, func(p Problem) bool { return p.Severity == Damage })
	return c.report, nil
}

// nameIt puts the member's name and folder into the advices.
func (c *checker) nameIt() {
	name := c.report.Name
	if name == "" {
		name = cmp.Or(c.report.Member, "<name>")
	}
	words := strings.NewReplacer("NAME", name, "DIR", c.dir.Data)
	for i, p := range c.report.Problems {
		c.report.Problems[i].Advice = words.Replace(p.Advice)
	}
}

func (c *checker) add(s Severity, file string, offset int64, key []byte, what, advice string) {
	p := Problem{Severity: s, File: file, Key: key, What: what, Advice: advice}
	if offset >= 0 {
		p.Offset = &offset
	}
	c.report.Problems = append(c.report.Problems, p)
}

func (c *checker) checkLog() error {
	in, err := wal.Inspect(wal.OS(), c.dir.wal())
	if errors.Is(err, fs.ErrNotExist) {
		c.add(Damage, c.dir.wal(), -1, nil, "the log is missing", adviceLog)
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range in.Findings {
		if f.Torn {
			c.add(Warning, f.Path, f.Offset, nil, "a torn write at the end of the log, as a crash leaves it; nothing that was acknowledged is in it: "+f.Text, adviceRun)
		} else {
			c.add(Damage, f.Path, f.Offset, nil, f.Text, adviceLog)
		}
	}
	if in.Segments == 0 {
		return nil
	}
	c.log, c.start = in, startOf(in)
	c.report.Log = LogReport{in.Segments, in.FirstIndex, in.LastIndex, in.LastTerm, in.HardState.GetCommit(), in.HardState.GetTerm()}
	member, cluster, err := identity(in.Metadata)
	if err != nil || in.Metadata == nil {
		c.add(Damage, c.dir.wal(), -1, nil, "the log does not say whose it is", adviceLog)
		return nil
	}
	c.report.Member, c.report.Cluster = fmt.Sprintf("%x", member), fmt.Sprintf("%x", cluster)
	if in.FirstIndex > c.start.Index+1 {
		c.add(Damage, c.dir.wal(), -1, nil, fmt.Sprintf("the log begins at entry %d, but the newest snapshot that it may start from is of entry %d: the segments between are missing", in.FirstIndex, c.start.Index), adviceLog)
	}
	return nil
}

// checkSnapFiles reads all .snap files and looks for that of the snapshot that
// a server starts from.
func (c *checker) checkSnapFiles() error {
	files, err := wal.ListSnapFiles(wal.OS(), c.dir.snap())
	if errors.Is(err, fs.ErrNotExist) {
		return nil // checkDatabase tells it
	}
	if err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(c.dir.snap(), f.Name())
		s, err := wal.ReadSnapFile(wal.OS(), path)
		switch m := s.GetMetadata(); {
		case err != nil:
			c.add(c.unlessNeeded(f), path, -1, nil, err.Error(), "Kvorum starts without it; etcd would set it aside and use an older one. `kvctl member rejoin` makes the folder whole again.")
		case m.GetIndex() != f.Index || m.GetTerm() != f.Term:
			c.add(Damage, path, -1, nil, fmt.Sprintf("holds the snapshot of entry %d of term %d, not what its name says", m.GetIndex(), m.GetTerm()), adviceSet)
		}
	}
	if want := (wal.SnapFile{Index: c.start.Index, Term: c.start.Term}); c.start.Index > 0 && !slices.Contains(files, want) {
		c.add(Warning, filepath.Join(c.dir.snap(), want.Name()), -1, nil, "the file of the log's newest snapshot is missing",
			"Kvorum starts without it, from the database; etcd would start from an older one, or not at all.")
	}
	return nil
}

// unlessNeeded: an unreadable file is damage; if the log does not begin at it,
// nobody will read it.
func (c *checker) unlessNeeded(f wal.SnapFile) Severity {
	if f.Index == c.start.Index {
		return Damage
	}
	return Warning
}

func (c *checker) checkDatabase() error {
	path := c.dir.db()
	if info, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		c.add(Damage, path, -1, nil, "the database is missing", adviceRebuild)
		return nil
	} else if err != nil {
		return err
	} else {
		c.report.Database.Bytes = info.Size()
	}
	r, err := mvcc.Check(path)
	if err != nil {
		return err
	}
	c.db = r
	b := &c.report.Database
	b.Revision, b.CompactRevision, b.Keys, b.Records = int64(r.Revision), int64(r.CompactRevision), r.Keys, r.Records
	b.Leases, b.Applied = r.Leases, r.Applied.Index
	for _, p := range r.Problems {
		c.add(Damage, path, p.Offset, p.Key, p.Text, adviceDB)
	}
	if len(r.Problems) > 0 {
		return nil
	}
	return c.checkState()
}

// checkState reads what is not keys as a server would.
func (c *checker) checkState() error {
	store, err := mvcc.OpenForLoad(c.dir.db())
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }() // it was only read
	c.checkLeases(store)
	machine, err := state.New(store, state.Options{})
	if err != nil {
		c.add(Damage, c.dir.db(), -1, nil, err.Error(), adviceDB)
		return nil
	}
	if c.log.Segments > 0 {
		c.checkPosition()
		c.checkMembers(machine)
	}
	return nil
}

func (c *checker) checkLeases(store *mvcc.Store) {
	err := store.Load(mvcc.BucketLease, func(k, v []byte) error {
		if err := state.CheckLease(k, v); err != nil {
			c.add(Damage, c.dir.db(), -1, nil, err.Error(), adviceDB)
		}
		return nil
	})
	if err != nil {
		c.add(Damage, c.dir.db(), -1, nil, err.Error(), adviceDB)
	}
}

// checkPosition compares the log position that the database reflects with the
// log.
func (c *checker) checkPosition() {
	applied, path := c.db.Applied.Index, c.dir.db()
	switch {
	case applied > c.log.LastIndex:
		c.add(Damage, path, -1, nil, fmt.Sprintf("the database holds entries up to %d, but the log ends at %d", applied, c.log.LastIndex), adviceSet)
	case applied < c.start.Index:
		if _, err := wal.SnapDBPath(wal.OS(), c.dir.snap(), c.start.Index); err != nil {
			c.add(Damage, path, -1, nil, fmt.Sprintf("the database holds entries up to %d, but the log begins after its snapshot of entry %d, and the database received with that is missing", applied, c.start.Index), adviceSet)
		} else {
			c.add(Warning, path, -1, nil, fmt.Sprintf("a newer database, of entry %d, was received from the leader and is not in place yet", c.start.Index), adviceRun)
		}
	}
}

// checkMembers works out the membership from the log and compares it with that
// of the database.
func (c *checker) checkMembers(machine *state.Machine) {
	path, damaged := c.dir.db(), len(c.log.Findings) > 0
	self, _, err := identity(c.log.Metadata)
	if err != nil {
		return // told with the log
	}
	if m, ok := machine.Member(state.MemberID(self)); ok {
		c.report.Name = m.Name
	} else if machine.IsRemoved(state.MemberID(self)) {
		c.add(Warning, path, -1, nil, fmt.Sprintf("member %x was removed from its cluster: a server does not stay up on this folder", self),
			"If it shall be a member again: `kvctl member add NAME --learner --peer-urls=…` at the others, then start with an empty folder.")
	}
	applied := c.db.Applied.Index
	if damaged || applied < c.start.Index || c.start.Index > 0 && c.start.ConfState == nil {
		return // the log cannot tell
	}
	want := raft.ConfStateOf(c.start.ConfState)
	if c.start.Index == 0 {
		want = raft.ConfState{}
	}
	want, err = membersAfter(want, c.log.ConfChanges, c.start.Index, applied, machine)
	if err != nil {
		c.add(Damage, c.dir.wal(), -1, nil, err.Error(), adviceLog)
		return
	}
	c.compareMembers(want, machine.ConfState())
}

func (c *checker) compareMembers(log raft.ConfState, db state.ConfState) {
	for _, kind := range []struct {
		what string
		log  []raft.MemberID
		db   []state.MemberID
	}{{"voter", log.Voters, db.Voters}, {"learner", log.Learners, db.Learners}} {
		for _, id := range kind.log {
			if !slices.Contains(kind.db, state.MemberID(id)) {
				c.add(Damage, c.dir.db(), -1, nil, fmt.Sprintf("the log has %s %x, but the bucket members of the database has not", kind.what, id), adviceSet)
			}
		}
		for _, id := range kind.db {
			if !slices.Contains(kind.log, raft.MemberID(id)) {
				c.add(Damage, c.dir.db(), -1, nil, fmt.Sprintf("the bucket members of the database has %s %x, but the log has not", kind.what, uint64(id)), adviceSet)
			}
		}
	}
}
