package v2keys

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// Answer is what a command came to, or an event.
type Answer struct {
	Action Action
	Node   *Node
	Prev   *Node // nil if there was none
	Index  mvcc.Revision
}

// Outcome is an answer with what it means for leases.
type Outcome struct {
	Answer
	// Dropped are the leases of the nodes that are gone or have another one.
	Dropped []mvcc.LeaseID
}

// change is one run of a command: first it is decided without changing
// anything, then carried out.
type change struct {
	r    *pb.V2Request
	rev  mvcc.Revision // that the change makes
	path string        // of the head

	old     *Node    // at path; nil if there is none
	missing string   // the first element of path that does not exist
	keys    [][]byte // to erase
	leases  []mvcc.LeaseID
}

// Apply carries out a command. The lease that it names must exist by the time
// the entry ends, if there was no error. The error is an *Error or ErrDamaged.
func Apply(w *mvcc.Writer, r *pb.V2Request) (Outcome, error) {
	c := &change{r: r, rev: w.Next(), path: r.Path}
	if r.Method == pb.V2Request_CREATE_IN_ORDER {
		c.path = join(r.Path, fmt.Sprintf("%020d", c.rev))
	}
	if err := w.Look(c.decide); err != nil {
		return Outcome{}, err
	}
	if removal, action := c.removal(); removal {
		return c.remove(w, action), nil
	}
	return c.write(w), nil
}

// Expire removes a node whose lease has ended, with all that is below it. A
// node that is gone meanwhile is no error.
func Expire(w *mvcc.Writer, key []byte) (Outcome, error) {
	c := &change{r: &pb.V2Request{}, rev: w.Next(), path: string(key[len(Prefix):])}
	err := w.Look(func(p mvcc.Picture) (err error) {
		if c.old, err = load(p, c.path); c.old != nil {
			c.collect(p)
		}
		return err
	})
	if err != nil || c.old == nil {
		return Outcome{}, err
	}
	return c.remove(w, ActionExpire), nil
}

// refuse is the error of the change.
func (c *change) refuse(code Code, cause string) error {
	return &Error{Code: code, Cause: cause, Index: c.rev - 1}
}

// decide checks the command against the state.
func (c *change) decide(p mvcc.Picture) (err error) {
	if c.path == Root {
		if c.r.Method == pb.V2Request_COMPARE_AND_DELETE {
			return c.refuse(CodeNotFile, "")
		}
		return c.refuse(CodeRoot, Root)
	}
	if c.old, c.missing, err = find(p, c.path); err != nil {
		return err
	}
	switch c.r.Method {
	case pb.V2Request_SET:
		return c.decideSet()
	case pb.V2Request_CREATE, pb.V2Request_CREATE_IN_ORDER:
		if c.old != nil {
			return c.refuse(CodeExists, c.path)
		}
		return nil
	case pb.V2Request_UPDATE:
		return c.decideUpdate()
	case pb.V2Request_COMPARE_AND_SWAP:
		return c.compare()
	case pb.V2Request_DELETE:
		return c.decideDelete(p)
	case pb.V2Request_COMPARE_AND_DELETE:
		if err := c.compare(); err != nil {
			return err
		}
		c.collect(p)
		return nil
	}
	return fmt.Errorf("unknown v2 method %d", c.r.Method)
}

func (c *change) decideSet() error {
	switch {
	case c.old != nil && c.old.Dir:
		return c.refuse(CodeNotFile, c.path)
	case c.old == nil && c.r.Refresh:
		return c.refuse(CodeNotFound, c.missing)
	}
	return nil
}

// decideUpdate: of a directory only the TTL may change.
func (c *change) decideUpdate() error {
	switch {
	case c.old == nil:
		return c.refuse(CodeNotFound, c.missing)
	case c.old.Dir && len(c.r.Value) > 0:
		return c.refuse(CodeNotFile, c.path)
	}
	return nil
}

// compare holds the old value and index against those that are wanted.
func (c *change) compare() error {
	switch {
	case c.old == nil:
		return c.refuse(CodeNotFound, c.missing)
	case c.old.Dir:
		return c.refuse(CodeNotFile, c.path)
	}
	var differences []string
	if want := c.r.PrevValue; want != "" && want != string(c.old.Value) {
		differences = append(differences, fmt.Sprintf("[%s != %s]", want, c.old.Value))
	}
	if want := c.r.PrevIndex; want != 0 && want != uint64(c.old.Modified) {
		differences = append(differences, fmt.Sprintf("[%d != %d]", want, c.old.Modified))
	}
	if differences != nil {
		return c.refuse(CodeCompare, strings.Join(differences, " "))
	}
	return nil
}

func (c *change) decideDelete(p mvcc.Picture) error {
	switch {
	case c.old == nil:
		return c.refuse(CodeNotFound, c.missing)
	case c.old.Dir && !c.r.Dir && !c.r.Recursive:
		return c.refuse(CodeNotFile, c.path)
	case c.old.Dir && !c.r.Recursive && p.Has(Below(c.path)):
		return c.refuse(CodeNotEmpty, c.path)
	}
	c.collect(p)
	return nil
}

// collect notes the keys of the old node and of all below it.
func (c *change) collect(p mvcc.Picture) {
	key := []byte(Key(c.path))
	if c.old.Dir {
		c.keys, c.leases = p.Keys(Below(c.path))
	}
	c.keys, c.leases = slices.Insert(c.keys, 0, key), append(c.leases, c.old.lease)
}

// removal tells whether the command takes nodes away.
func (c *change) removal() (bool, Action) {
	switch c.r.Method {
	case pb.V2Request_DELETE:
		return true, ActionDelete
	case pb.V2Request_COMPARE_AND_DELETE:
		return true, ActionCompareAndDelete
	}
	return false, 0
}

// remove writes down what is removed and erases it.
func (c *change) remove(w *mvcc.Writer, action Action) Outcome {
	w.PutKey(removalKey, removal{action, c.old.Dir, c.old.Created, c.path}.encode(), 0)
	w.DeleteKeys(c.keys)
	head := &Node{Path: c.path, Dir: c.old.Dir, Created: c.old.Created, Modified: c.rev}
	return Outcome{
		Answer:  Answer{Action: action, Node: head, Prev: c.old, Index: c.rev},
		Dropped: slices.DeleteFunc(c.leases, func(id mvcc.LeaseID) bool { return id == 0 }),
	}
}

// write makes the directories that are missing above the head, and then the
// head.
func (c *change) write(w *mvcc.Writer) Outcome {
	if c.old == nil {
		c.makeDirs(w)
	}
	s := c.head()
	told := s.Node
	if c.old != nil && c.old.Dir {
		// A directory whose TTL changes keeps its modified index, though watchers
		// are told another one.
		s.flags |= flagModified
		s.Modified = c.old.Modified
	}
	w.PutKey(Key(c.path), s.encode(), s.lease)
	out := Outcome{Answer: Answer{Action: s.action, Node: &told, Prev: c.old, Index: c.rev}}
	if c.old != nil && c.old.lease != 0 && c.old.lease != s.lease {
		out.Dropped = []mvcc.LeaseID{c.old.lease}
	}
	return out
}

// head is the node that the command writes.
func (c *change) head() *stored {
	s := &stored{action: c.action()}
	s.Path, s.Value, s.Dir, s.Created, s.Modified = c.path, c.r.Value, c.r.Dir, c.rev, c.rev
	if c.old != nil && s.action != ActionSet {
		s.Created, s.Dir = c.old.Created, c.old.Dir
	}
	if c.r.Refresh {
		s.flags |= flagSilent
		if c.old != nil {
			s.Value = c.old.Value
		}
	}
	if s.Dir {
		s.flags |= flagDir
		s.Value = nil
	}
	if c.r.Lease != 0 {
		s.flags |= flagExpires
		s.Expiration, s.lease = c.r.Expiration, mvcc.LeaseID(c.r.Lease)
	}
	return s
}

func (c *change) action() Action {
	switch c.r.Method {
	case pb.V2Request_CREATE, pb.V2Request_CREATE_IN_ORDER:
		return ActionCreate
	case pb.V2Request_UPDATE:
		return ActionUpdate
	case pb.V2Request_COMPARE_AND_SWAP:
		return ActionCompareAndSwap
	}
	return ActionSet
}

// makeDirs makes the directories from the first missing one down to the head.
func (c *change) makeDirs(w *mvcc.Writer) {
	for at := len(c.missing); at < len(c.path); {
		dir := &stored{action: ActionCreate, flags: flagDir | flagAside}
		dir.Created = c.rev
		w.PutKey(Key(c.path[:at]), dir.encode(), 0)
		next := strings.IndexByte(c.path[at+1:], '/')
		if next < 0 {
			return
		}
		at += 1 + next
	}
}
