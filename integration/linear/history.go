package linear

import (
	"fmt"
	"math"
	"sync"
	"time"
)

// Never is the return time of a request whose outcome is unknown: it may take effect at any later time.
const Never = math.MaxInt64

// KV is one key as an answer had it. Version 0: the key does not exist.
type KV struct {
	Value                       string
	Create, Mod, Version, Lease int64
}

// Outcome is what a client knows about the effect of its request.
type Outcome int

// The outcomes. A refused request has certainly had no effect.
const (
	Done Outcome = iota
	Refused
	Unknown
)

// Target is what a Compare looks at.
type Target int

// The targets.
const (
	OnValue Target = iota
	OnVersion
	OnMod
)

// Compare demands that a field of a key is equal to something.
type Compare struct {
	Key    string
	Target Target
	Value  string // OnValue
	Number int64  // OnVersion, OnMod
}

// Write puts a value that no other write of the run has, or deletes.
type Write struct {
	Key, Value string
	Lease      int64
	Delete     bool
}

// Request is what a client asked for. If all of Compares hold, Writes are done; otherwise, or when there are no writes,
// Reads are read. Revoke, if set, ends a lease instead.
type Request struct {
	Compares     []Compare
	Writes       []Write
	Reads        []string
	Revision     int64 // Reads at this revision; 0: the newest
	Serializable bool
	Revoke       int64
}

// Answer is what came back. Its slices are as long as the request's, or nil.
type Answer struct {
	Revision  int64 // of the header
	Succeeded bool  // Compares held
	Reads     []KV
	Prev      []KV // of Writes, when they were done
	Failure   string
}

// Operation is a request with its answer. Times are nanoseconds since the run began.
type Operation struct {
	Client, Member  int
	Life            int // which process of the member; -1: not the same one from call to return
	Call, Return    int64
	Outcome         Outcome
	Request         Request
	Answer          Answer
	CompactedBefore int64 // the largest revision that anyone had asked to compact when it returned
}

// writes tells whether the operation was done and may have changed something.
func (o *Operation) writes() bool {
	return o.Outcome == Done && (o.Request.Revoke != 0 || (len(o.Request.Writes) > 0 && o.Answer.Succeeded))
}

func (o *Operation) String() string {
	return fmt.Sprintf("[client %d member %d %s..%s] %s -> %s", o.Client, o.Member, seconds(o.Call), seconds(o.Return), o.Request, o.Answer.describe(o.Outcome))
}

func seconds(t int64) string {
	if t == Never {
		return "never"
	}
	return fmt.Sprintf("%.6f", time.Duration(t).Seconds())
}

func (r Request) String() string {
	s := ""
	if r.Serializable {
		s = "serializable "
	}
	if r.Revision != 0 {
		s += fmt.Sprintf("at %d ", r.Revision)
	}
	if r.Revoke != 0 {
		return fmt.Sprintf("revoke %x", r.Revoke)
	}
	for _, c := range r.Compares {
		s += fmt.Sprintf("if %s %s ", c.Key, []string{"value=" + c.Value, fmt.Sprintf("version=%d", c.Number), fmt.Sprintf("mod=%d", c.Number)}[c.Target])
	}
	for _, w := range r.Writes {
		if w.Delete {
			s += "delete " + w.Key + " "
		} else {
			s += fmt.Sprintf("put %s=%s lease %x ", w.Key, w.Value, w.Lease)
		}
	}
	if len(r.Reads) > 0 {
		s += fmt.Sprintf("read %v", r.Reads)
	}
	return s
}

func (a Answer) describe(o Outcome) string {
	switch o {
	case Unknown:
		return "unknown: " + a.Failure
	case Refused:
		return "refused: " + a.Failure
	}
	return fmt.Sprintf("revision %d succeeded %v reads %v prev %v", a.Revision, a.Succeeded, a.Reads, a.Prev)
}

// Event is one change as a watcher heard it.
type Event struct {
	Key      string
	Revision int64
	Delete   bool
	KV       KV // of a put
	HasPrev  bool
	Prev     KV
}

// Notice is one answer on a watch stream: events, or a promise that everything up to Revision has been sent.
type Notice struct {
	At       int64 // nanoseconds since the run began
	Revision int64 // of the header
	Progress bool
	Events   []Event
}

// Session is one watcher on one stream, from its creation to its end.
type Session struct {
	Watcher         int
	Member          int
	From            int64 // the start revision that was asked for
	Key             string
	Whole           bool // the whole keyspace; otherwise Key alone
	NoDelete        bool
	Prev            bool // previous values were asked for
	Notices         []Notice
	CompactRevision int64 // of the cancellation, if it was one
	CompactedBefore int64 // the largest revision that anyone had asked to compact when it ended
}

// Lease is a lease that was granted, or may have been.
type Lease struct {
	ID      int64
	Call    int64 // when the grant was sent
	TTL     time.Duration
	Renewed []Renewal
}

// Renewal is a keep-alive that was answered with a time to live: 0 says that the lease is no more.
type Renewal struct {
	Call, Return int64
	TTL          int64 // seconds
}

// Hold is a time during which a client knew that it alone had a lock: from when it was told so until it gave the lock
// back, or until the time to live that it was promised was over.
type Hold struct {
	Client      int
	Lock        string
	Lease       int64
	Revision    int64 // the fence
	From, Until int64
}

// History is everything that was recorded in one run.
type History struct {
	Operations []*Operation
	Sessions   []*Session
	Leases     []*Lease
	Holds      []Hold
	Final      int64 // all-key watchers must have heard everything up to here
}

// Recorder collects a History. Any goroutine may call it.
type Recorder struct {
	began time.Time

	mu        sync.Mutex
	history   History // guarded by mu
	compacted int64   // guarded by mu: the largest revision that was asked to be compacted
}

// NewRecorder starts the clock.
func NewRecorder() *Recorder { return &Recorder{began: time.Now()} }

// Now is the time of the run.
func (r *Recorder) Now() int64 { return int64(time.Since(r.began)) }

// Add records an operation that has ended.
func (r *Recorder) Add(o *Operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o.CompactedBefore = r.compacted
	r.history.Operations = append(r.history.Operations, o)
}

// AddSession records a watch that has ended.
func (r *Recorder) AddSession(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.CompactedBefore = r.compacted
	r.history.Sessions = append(r.history.Sessions, s)
}

// AddLease records a lease before it is granted.
func (r *Recorder) AddLease(l Lease) *Lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Leases = append(r.history.Leases, &l)
	return &l
}

// Renewed records an answered keep-alive.
func (r *Recorder) Renewed(l *Lease, renewal Renewal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.Renewed = append(l.Renewed, renewal)
}

// AddHold records that a client no longer relies on a lock.
func (r *Recorder) AddHold(h Hold) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Holds = append(r.history.Holds, h)
}

// Compacting records that revision is about to be compacted.
func (r *Recorder) Compacting(revision int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.compacted = max(r.compacted, revision)
}

// End gives the history away. Nobody may record any more.
func (r *Recorder) End(final int64) History {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Final = final
	return r.history
}
