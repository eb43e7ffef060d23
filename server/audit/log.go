package audit

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// queueBytesDefault is how much may wait to be written.
	queueBytesDefault = 8 << 20
	// gatherFor is how long the writer waits for more lines: one write of many
	// costs hardly more than one of one.
	gatherFor = 10 * time.Millisecond
)

// Options of a log.
type Options struct {
	Out io.Writer
	// DropWhenFull: a line that finds the queue full is dropped and counted.
	// Otherwise whoever writes it waits.
	DropWhenFull bool
	// QueueBytes is how much may wait to be written; 0 is 8 MiB.
	QueueBytes int
	// Log is told when lines begin to be lost and when they no longer are.
	Log *slog.Logger
}

// Log is the audit log. Write may be called from any goroutine; Run is the one
// that writes to the file.
type Log struct {
	o     Options
	lines sync.Pool     // of *[]byte, for encoding outside the lock
	wake  chan struct{} // there are lines
	hurry chan struct{} // the queue is half full

	mu      sync.Mutex // guards what follows
	queue   []byte
	queued  int64 // lines in it
	room    *sync.Cond
	stopped bool // Run is over: lines go out one by one

	dropped, lost atomic.Int64

	// Owned by Run; after it by whoever holds mu.
	spare   []byte
	failing bool // the last write failed
}

// New makes a log.
func New(o Options) *Log {
	if o.QueueBytes == 0 {
		o.QueueBytes = queueBytesDefault
	}
	l := &Log{o: o, wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1)}
	l.lines.New = func() any { b := make([]byte, 0, 512); return &b }
	l.room = sync.NewCond(&l.mu)
	return l
}

// Dropped is how many lines found the queue full, and Lost how many could not be
// written.
func (l *Log) Dropped() int64 { return l.dropped.Load() }

// Lost counts the lines that could not be written.
func (l *Log) Lost() int64 { return l.lost.Load() }

// Write takes one record; the caller may change it afterwards.
func (l *Log) Write(r *Record) {
	line := l.lines.Get().(*[]byte)
	*line = r.append((*line)[:0])
	first, half := l.put(*line)
	l.lines.Put(line)
	if first {
		poke(l.wake)
	}
	if half {
		poke(l.hurry)
	}
}

// put queues a line. first: it is the only one; half: it has made the queue half
// full.
func (l *Log) put(line []byte) (first, half bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.stopped && len(l.queue) > 0 && len(l.queue)+len(line) > l.o.QueueBytes {
		if l.o.DropWhenFull {
			l.dropped.Add(1)
			return false, false
		}
		l.room.Wait()
	}
	if l.stopped {
		l.out(line, 1)
		return false, false
	}
	before := len(l.queue)
	l.queue = append(l.queue, line...)
	l.queued++
	return before == 0, before < l.o.QueueBytes/2 && len(l.queue) >= l.o.QueueBytes/2
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run writes until ctx ends, and then what is left.
func (l *Log) Run(ctx context.Context) {
	gather := time.NewTimer(0)
	defer gather.Stop()
	for {
		select {
		case <-l.wake:
		case <-ctx.Done():
			l.finish()
			return
		}
		gather.Reset(gatherFor)
		select {
		case <-gather.C:
		case <-l.hurry:
		case <-ctx.Done():
		}
		l.flush()
	}
}

// flush writes what is queued.
func (l *Log) flush() {
	l.mu.Lock()
	batch, n := l.queue, l.queued
	l.queue, l.queued = l.spare[:0], 0
	l.mu.Unlock()
	l.room.Broadcast()
	l.out(batch, n)
	l.spare = batch
}

// finish writes what is queued and makes later lines go out by themselves.
func (l *Log) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out(l.queue, l.queued)
	l.queue, l.queued, l.spare, l.stopped = nil, 0, nil, true
	l.room.Broadcast()
}

// out writes n lines. After a failure the next begins on a line of its own: the
// last one may be there in part.
func (l *Log) out(lines []byte, n int64) {
	if n == 0 {
		return
	}
	if l.failing {
		if _, err := l.o.Out.Write([]byte{'\n'}); err != nil {
			l.lost.Add(n)
			return
		}
	}
	_, err := l.o.Out.Write(lines)
	if err != nil {
		l.lost.Add(n)
	}
	switch {
	case err != nil && !l.failing:
		l.o.Log.Error("audit lines cannot be written and are lost", "error", err.Error())
	case err == nil && l.failing:
		l.o.Log.Warn("audit lines are written again", "lost", l.lost.Load())
	}
	l.failing = err != nil
}
