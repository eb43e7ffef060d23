package mvcc

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/must"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// Options of a store; the zero value of each field is a good default.
type Options struct {
	FlushEvery        time.Duration // how long an applied entry may stay unflushed; 100 ms
	FlushRecords      int           // flush earlier at so many records; 10,000
	UnflushedBytesMax int           // Publish waits for the flusher beyond this; 256 MiB
	TailBytes         int           // flushed records kept in memory; 8 MiB
	CompactionBatch   int           // revisions removed per transaction; 1000
	CompactionPause   time.Duration // between two of them; 10 ms
	CompactHashes     bool          // hash the whole store at each compaction, for comparing members
	MmapBytes         int64         // address space reserved for the file; 10 GiB
	LockTimeout       time.Duration // for the file lock; 0 waits for ever
	NoSync            bool          // for tests: never fsync
	LockMemory        bool          // keep the file's pages in RAM (mlock); ErrLockMemory if that is not permitted

	// Damaged, if set, is told of each record of the file that is not what was
	// written, whenever one is met. Any goroutine may call it; it must not wait.
	Damaged func(*Damage)

	// Observe, if set, is told how long each step took. It runs on the flusher and
	// must not wait.
	Observe func(step Step, took time.Duration)
}

func (o Options) withDefaults() Options {
	def(&o.FlushEvery, 100*time.Millisecond)
	def(&o.FlushRecords, 10_000)
	def(&o.UnflushedBytesMax, 256<<20)
	def(&o.TailBytes, 8<<20)
	def(&o.CompactionBatch, 1000)
	def(&o.CompactionPause, 10*time.Millisecond)
	def(&o.MmapBytes, 10<<30)
	return o
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Store is the versioned key space and the other replicated buckets.
type Store struct {
	path    string
	opts    Options
	view    atomic.Pointer[view] // the newest published picture
	hub     *hub
	anchors anchors
	counts  counters
	wake    chan struct{} // asks the flusher to look now
	closed  atomic.Bool
	writer  Writer // owner: the applier; whether it is in use is guarded by mu

	// flushMu is held by whoever changes the file: flush, a compaction slice,
	// the last step of defragmentation, install. Taken before mu.
	flushMu sync.Mutex
	flusher flusherState // guarded by flushMu

	// mu guards state. The applier holds it for one operation, the flusher for
	// a moment; readers never take it.
	mu   sync.Mutex
	room *sync.Cond // unflushed bytes have become fewer, or the store has failed
	state
}

// state is everything that the applier changes, and that Install replaces.
type state struct {
	disk    *disk
	tree    tree
	tail    tail
	leases  attachments
	garbage garbage
	rev     Revision // of the last finished entry
	compact Revision
	applied Applied
	events  []*Event // since the last Publish

	others          []otherWrite // not flushed, oldest first
	othersPublished int          // of them
	published       int64        // tail position
	flushed         int64        // tail position
	flushedApplied  Applied
	flushedBytes    int // of the records held in the tail
	unflushedBytes  int

	targets  []Revision // compactions to do, oldest first
	finished Revision   // the last compaction that is done and committed
	resumed  Revision   // a compaction that a former run began: what it has removed cannot be hashed; 0 is none
	waiters  []compactionWaiter
	hashes   []HashKV // of the last compactions, oldest first
	failed   error    // the first failed commit; nothing is flushed after it
}

// otherWrite is a change of a bucket other than the key bucket.
type otherWrite struct {
	bucket Bucket
	key    []byte
	value  []byte // nil deletes
}

// Open opens or creates the file and rebuilds the index from it.
func Open(path string, o Options) (*Store, error) {
	o = o.withDefaults()
	d, err := openDisk(path, o)
	if err != nil {
		return nil, err
	}
	if err := syncDir(filepath.Dir(path)); err != nil { // bbolt does not make the name of a new file durable
		return nil, errors.Join(err, d.db.Close())
	}
	var st *state
	err = guarded(func() error {
		st, err = rebuild(d)
		return err
	})
	if err != nil {
		d.db.Close()
		return nil, fmt.Errorf("rebuild index of %s: %w", path, err)
	}
	s := &Store{path: path, opts: o, wake: make(chan struct{}, 1), state: *st}
	s.room = sync.NewCond(&s.mu)
	s.hub = newHub(s, s.rev)
	s.publishView()
	return s, nil
}

// publishView makes the working state visible. mu is held, or nobody else
// knows the store yet.
func (s *Store) publishView() {
	s.tree.freeze()
	s.published = s.tail.last
	s.othersPublished = len(s.others)
	s.view.Store(s.working(s.rev))
}

// republish lets readers forget what the tail and the index have dropped, when
// no entry is half done: the applier may not publish for a long time. mu is held.
func (s *Store) republish() {
	v := s.view.Load()
	if s.writer.s == nil && s.published == s.tail.last && s.rev == v.rev && s.applied == v.applied &&
		s.compact == v.compact && s.othersPublished == len(s.others) {
		s.publishView()
	}
}

// working returns a picture of the working state as the given revision. It is
// valid for ever only if the tree is frozen; otherwise until mu is released.
func (s *state) working(rev Revision) *view {
	return &view{tree: s.tree, tail: s.tail, rev: rev, compact: s.compact, applied: s.applied, disk: s.disk}
}

// Publish makes everything written since the last Publish visible to readers
// at once and hands its events to the watch hub. It waits while too many bytes
// are unflushed. Only the applier calls it.
func (s *Store) Publish() {
	s.mu.Lock()
	s.trimTail()
	compacted := s.view.Load().compact != s.compact
	s.publishView()
	rev, events := s.rev, s.events
	s.events = make([]*Event, 0, len(events)) // the hub keeps the other one
	due := s.published-s.flushed >= int64(s.opts.FlushRecords) ||
		s.unflushedBytes > s.opts.UnflushedBytesMax/4
	s.mu.Unlock()
	if compacted {
		s.anchors.dropBefore(s.view.Load().compact)
	}
	if len(events) > 0 {
		s.hub.publish(rev, events)
	}
	if due || compacted {
		s.wakeFlusher()
	}
	s.awaitRoom()
}

// trimTail forgets flushed records beyond the window. mu is held.
func (s *Store) trimTail() {
	for s.flushedBytes > s.opts.TailBytes && s.tail.first < s.flushed {
		s.flushedBytes -= s.tail.drop()
	}
}

func (s *Store) wakeFlusher() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Store) awaitRoom() {
	s.mu.Lock()
	for s.unflushedBytes > s.opts.UnflushedBytesMax && s.failed == nil && !s.closed.Load() {
		s.room.Wait()
	}
	s.mu.Unlock()
}

// Revision returns the newest visible revision.
func (s *Store) Revision() Revision { return s.view.Load().rev }

// CompactRevision returns the revision below which nothing can be read, -1 if
// the store was never compacted.
func (s *Store) CompactRevision() Revision { return s.view.Load().compact }

// Applied returns the log position that the visible state reflects.
func (s *Store) Applied() Applied { return s.view.Load().applied }

// Flushed returns the log position that would survive a crash. The log must be
// kept from there.
func (s *Store) Flushed() Applied {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flushedApplied
}

// Txn answers a transaction that has only ranges, on one view.
func (s *Store) Txn(r *pb.TxnRequest) (*pb.TxnResponse, error) {
	return settled(s, 0, func(v *view) (*pb.TxnResponse, error) {
		t := txn{view: v, leaseExists: func(LeaseID) bool { return false }}
		return t.run(r)
	})
}

// Write begins an entry. Only the applier writes, one entry at a time; the
// Writer is valid until its Close. An entry that is not from the log (first
// start) repeats the applied position.
func (s *Store) Write(at Applied) *Writer {
	s.mu.Lock()
	defer s.mu.Unlock()
	must.True(s.writer.s == nil, "an entry begins before the last one was closed")
	must.True(at.Index >= s.applied.Index, "an entry comes after a later one")
	s.writer = Writer{s: s, at: at, main: s.rev + 1}
	return &s.writer
}
