package wal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/crash"
	"github.com/kvorum/kvorum/internal/must"
	"go.etcd.io/raft/v3/raftpb"
)

// bufferBytesMax bounds the memory of a batch: a larger one is written in
// several calls.
const bufferBytesMax = 8 << 20

// Log is the write-ahead log, open for writing. One goroutine owns it; only
// [Log.Stats], [Log.Verify] and [Log.WriteSnapFile] may be called from others.
//
// Invariant: every byte of the tail beyond offset is zero or not yet synced.
type Log struct {
	fs           FS
	dir          string
	metadata     []byte
	segmentBytes int64
	observe      observer

	held   []segment // oldest first, each locked; the last is the tail
	offset int64     // end of the last record in the tail
	crc    uint32    // running checksum at offset
	buf    []byte    // reused for every batch
	head   []byte    // reused for every record: its data up to the payload

	state      *raftpb.HardState // latest; term, vote and commit always set
	lastIndex  uint64            // of the last entry appended, or of a later snapshot
	snapIndex  uint64            // of the newest snapshot record
	unsynced   bool              // something was written since the last sync
	syncNeeded bool              // and it must not be acted on before a sync
	failed     error             // sticky

	bytesWritten atomic.Int64
	syncs        atomic.Int64
	cuts         atomic.Int64

	durableSeq    atomic.Uint64 // the tail, and what of it is durable: for Verify
	durableOffset atomic.Int64
}

// segment is an open, locked segment.
type segment struct {
	name segmentName
	file File
}

// Stats counts what a log did since it was opened.
type Stats struct {
	BytesWritten int64
	Syncs        int64
	Cuts         int64
}

// Step names what an observer is told of.
type Step string

// The steps of a log.
const (
	StepWrite Step = "write" // one batch given to the kernel
	StepSync  Step = "sync"  // one fdatasync
	// Of a .snap file: encoding it, its sync, and all of it.
	StepSnapEncode Step = "encode snapshot"
	StepSnapSync   Step = "sync snapshot"
	StepSnapSave   Step = "save snapshot"
	StepCut        Step = "cut" // one new segment
)

// observer measures steps; its zero value measures nothing.
type observer struct {
	now  func() time.Time
	seen func(Step, time.Duration)
}

func (o observer) start() time.Time {
	if o.now == nil {
		return time.Time{}
	}
	return o.now()
}

func (o observer) end(step Step, from time.Time) {
	if o.now != nil {
		o.seen(step, o.now().Sub(from))
	}
}

// Create makes a log in dir, which must not hold one, and opens it. It appears
// at once and whole: it is made beside dir and renamed. metadata is the encoded
// etcdserverpb.Metadata, repeated at the head of every segment.
func Create(fs FS, dir string, metadata []byte) (*Log, error) {
	if Exists(fs, dir) {
		return nil, fmt.Errorf("create log in %s: %w", dir, os.ErrExist)
	}
	l := &Log{fs: fs, dir: dir, metadata: metadata, segmentBytes: segmentBytes, state: newState(0, 0, 0)}
	if err := l.create(filepath.Clean(dir) + ".tmp"); err != nil {
		l.closeFiles()
		return nil, fmt.Errorf("create log in %s: %w", dir, err)
	}
	return l, nil
}

func (l *Log) create(tmp string) error {
	if err := l.fs.RemoveAll(tmp); err != nil {
		return fmt.Errorf("remove stale directory: %w", err)
	}
	if err := l.fs.MkdirAll(tmp); err != nil {
		return err
	}
	name := segmentName{}
	file, err := l.newFile(filepath.Join(tmp, name.String()))
	if err != nil {
		return err
	}
	l.held = []segment{{name, file}}
	head := appendRecord(nil, kindCRC, 0, nil, nil)
	head, crc := appendPlain(head, 0, kindMetadata, l.metadata)
	zero, err := appendSnapshot(nil, Snapshot{})
	must.NoError(err, "encode the first snapshot record")
	head, l.crc = appendPlain(head, crc, kindSnapshot, zero)
	if _, err := file.WriteAt(head, 0); err != nil {
		return fmt.Errorf("write first segment: %w", err)
	}
	l.offset = int64(len(head))
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync first segment: %w", err)
	}
	l.noteDurable()
	if err := l.fs.SyncDir(tmp); err != nil {
		return fmt.Errorf("sync new directory: %w", err)
	}
	crash.Here("wal/create-before-rename")
	if err := l.fs.Rename(tmp, l.dir); err != nil {
		return err
	}
	crash.Here("wal/create-before-dir-sync")
	if err := l.fs.SyncDir(filepath.Dir(l.dir)); err != nil {
		return fmt.Errorf("sync parent directory: %w", err)
	}
	return nil
}

// newFile makes a locked, preallocated file, truncating a stale one.
func (l *Log) newFile(path string) (File, error) {
	file, err := l.fs.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := file.Lock(); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
	}
	if err := file.Preallocate(l.segmentBytes); err != nil {
		return nil, errors.Join(fmt.Errorf("preallocate %s: %w", path, err), file.Close())
	}
	return file, nil
}

// Exists reports whether dir holds a log.
func Exists(fs FS, dir string) bool {
	names, err := fs.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, name := range names {
		if filepath.Ext(name) == ".wal" {
			return true
		}
	}
	return false
}

// SetSegmentSize makes later segments smaller than etcd's 64 MB, for tests that
// want many. Call it before the first Append.
func (l *Log) SetSegmentSize(bytes int64) { l.segmentBytes = bytes }

// Observe makes the log report how long each step took; seen runs on the
// owner's goroutine, and for .snap files on that of whoever saves one. Call it before the first Append.
func (l *Log) Observe(now func() time.Time, seen func(Step, time.Duration)) {
	l.observe = observer{now, seen}
}

// Metadata is what the log was created with.
func (l *Log) Metadata() []byte { return l.metadata }

// Stats may be called from any goroutine.
func (l *Log) Stats() Stats {
	return Stats{BytesWritten: l.bytesWritten.Load(), Syncs: l.syncs.Load(), Cuts: l.cuts.Load()}
}

// Append writes entries and then the hard state, if any, to the kernel; they
// are durable after [Log.Sync]. hs may be nil or empty. entries are not kept.
func (l *Log) Append(hs *raftpb.HardState, entries []*raftpb.Entry) error {
	if l.failed != nil {
		return l.failed
	}
	l.buf = l.buf[:0]
	for _, e := range entries {
		l.head = appendEntryHead(l.head[:0], e)
		l.buf, l.crc = appendEntryRecord(l.buf, l.crc, l.head, e)
		l.lastIndex = e.GetIndex()
		l.syncNeeded = true
		if len(l.buf) >= bufferBytesMax {
			if err := l.write(); err != nil {
				return err
			}
		}
	}
	if !emptyState(hs) {
		if l.decisive(hs) {
			l.syncNeeded = true
		}
		*l.state.Term, *l.state.Vote, *l.state.Commit = hs.GetTerm(), hs.GetVote(), hs.GetCommit()
		l.head = appendState(l.head[:0], l.state)
		l.buf, l.crc = appendPlain(l.buf, l.crc, kindState, l.head)
	}
	return l.write()
}

// decisive reports whether others may rely on hs: a changed term or vote, or a
// commit that reaches the newest snapshot, whose record counts only from then.
func (l *Log) decisive(hs *raftpb.HardState) bool {
	return hs.GetTerm() != l.state.GetTerm() || hs.GetVote() != l.state.GetVote() ||
		l.state.GetCommit() < l.snapIndex && l.snapIndex <= hs.GetCommit()
}

// AppendSnapshot writes the mark of a snapshot whose .snap file or received
// database is already durable. It is itself durable after [Log.Sync].
func (l *Log) AppendSnapshot(s Snapshot) error {
	if l.failed != nil {
		return l.failed
	}
	must.True(s.Index == 0 || s.ConfState != nil, "snapshot record %d without membership", s.Index)
	data, err := appendSnapshot(nil, s)
	if err != nil {
		return fmt.Errorf("append snapshot %d: %w", s.Index, err)
	}
	l.buf, l.crc = appendPlain(l.buf[:0], l.crc, kindSnapshot, data)
	l.lastIndex, l.snapIndex = max(l.lastIndex, s.Index), max(l.snapIndex, s.Index)
	l.syncNeeded = true
	return l.write()
}

// SyncNeeded reports whether something was appended that nobody may be told of
// before a sync: an entry, a snapshot, a changed term or vote, or the commit
// that makes a snapshot from the leader count. Any other hard state in which
// only commit moved needs none.
func (l *Log) SyncNeeded() bool { return l.syncNeeded }

// Sync makes everything appended durable, and then cuts the segment if it is
// full. An error is final, see the package's promise.
func (l *Log) Sync() error {
	if l.failed != nil {
		return l.failed
	}
	if l.unsynced {
		crash.Here("walBeforeSync")
		from := l.observe.start()
		if err := l.tail().SyncData(); err != nil {
			return l.fail("sync "+l.tailPath(), err)
		}
		l.observe.end(StepSync, from)
		crash.Here("walAfterSync")
		l.syncs.Add(1)
		l.unsynced, l.syncNeeded = false, false
		l.noteDurable()
	}
	if l.offset < l.segmentBytes {
		return nil
	}
	from := l.observe.start()
	if err := l.cut(); err != nil {
		return l.fail("cut", err)
	}
	l.observe.end(StepCut, from)
	l.cuts.Add(1)
	l.noteDurable()
	return nil
}

// Release gives up the segments that only matter to snapshots older than the
// one at index, so that [Purge] may delete them.
func (l *Log) Release(index uint64) error {
	if l.failed != nil {
		return l.failed
	}
	keep := len(l.held) - 1
	for i, s := range l.held {
		if s.name.index >= index {
			keep = max(i-1, 0)
			break
		}
	}
	var errs []error
	for _, s := range l.held[:keep] {
		errs = append(errs, s.file.Close())
	}
	l.held = append([]segment(nil), l.held[keep:]...)
	return errors.Join(errs...)
}

// Close syncs what is not synced and closes the files. The log takes nothing
// afterwards.
func (l *Log) Close() error {
	var err error
	switch {
	case errors.Is(l.failed, ErrClosed):
		return nil
	case l.failed != nil:
	case l.unsynced:
		if err = l.tail().SyncData(); err != nil {
			err = fmt.Errorf("sync log at close: %w", err)
		}
	}
	l.failed = ErrClosed
	return errors.Join(err, l.closeFiles())
}

func (l *Log) closeFiles() error {
	var errs []error
	for _, s := range l.held {
		errs = append(errs, s.file.Close())
	}
	l.held = nil
	return errors.Join(errs...)
}

func (l *Log) tailPath() string {
	return filepath.Join(l.dir, l.held[len(l.held)-1].name.String())
}

func (l *Log) tail() File { return l.held[len(l.held)-1].file }

// write gives buf to the kernel at the end of the tail.
func (l *Log) write() error {
	if len(l.buf) == 0 {
		return nil
	}
	from := l.observe.start()
	n, err := l.tail().WriteAt(l.buf, l.offset)
	if err == nil && n < len(l.buf) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return l.fail("write "+l.tailPath(), err)
	}
	l.observe.end(StepWrite, from)
	l.offset += int64(n)
	l.bytesWritten.Add(int64(n))
	l.unsynced = true
	if l.buf = l.buf[:0]; cap(l.buf) > 2*bufferBytesMax {
		l.buf = nil
	}
	return nil
}

// fail remembers the first failure for good.
func (l *Log) fail(step string, err error) error {
	l.failed = fmt.Errorf("%w: %s: %w", ErrFailed, step, err)
	return l.failed
}

// cut closes the full tail, all of which is synced, and starts the next segment.
// The truncation needs no sync of its own: zeros at the end of a segment end it
// just as well.
func (l *Log) cut() error {
	if err := l.tail().Truncate(l.offset); err != nil {
		return fmt.Errorf("truncate full segment: %w", err)
	}
	crash.Here("wal/cut-before-create")
	name := segmentName{l.held[len(l.held)-1].name.seq + 1, l.lastIndex + 1}
	tmp := filepath.Join(l.dir, fmt.Sprintf("%d.tmp", name.seq%2))
	file, err := l.newFile(tmp)
	if err != nil {
		return err
	}
	head, crc := l.segmentHead()
	if err := l.place(file, head, tmp, name); err != nil {
		return errors.Join(err, file.Close())
	}
	l.held = append(l.held, segment{name, file})
	l.offset, l.crc = int64(len(head)), crc
	l.bytesWritten.Add(l.offset)
	return nil
}

// segmentHead is the head of a segment after the first: the checksum carried
// over, the metadata and the latest hard state.
func (l *Log) segmentHead() ([]byte, uint32) {
	head := appendRecord(nil, kindCRC, l.crc, nil, nil)
	head, crc := appendPlain(head, l.crc, kindMetadata, l.metadata)
	if !emptyState(l.state) {
		head, crc = appendPlain(head, crc, kindState, appendState(nil, l.state))
	}
	return head, crc
}

// place makes the new segment durable under its name. Its bytes are synced
// before the rename, so a segment never appears without its head.
func (l *Log) place(file File, head []byte, tmp string, name segmentName) error {
	if _, err := file.WriteAt(head, 0); err != nil {
		return fmt.Errorf("write head of segment %s: %w", name, err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync segment %s: %w", name, err)
	}
	crash.Here("wal/cut-before-rename")
	if err := l.fs.Rename(tmp, filepath.Join(l.dir, name.String())); err != nil {
		return err
	}
	crash.Here("wal/cut-before-dir-sync")
	if err := l.fs.SyncDir(l.dir); err != nil {
		return fmt.Errorf("sync log directory: %w", err)
	}
	crash.Here("wal/after-cut")
	return nil
}

func emptyState(hs *raftpb.HardState) bool {
	return hs.GetTerm() == 0 && hs.GetVote() == 0 && hs.GetCommit() == 0
}
