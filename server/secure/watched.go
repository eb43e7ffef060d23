package secure

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

// settledAfter: a file that was changed less than this before it was read may
// change again without a new time stamp, so it is read again the next time.
const settledAfter = time.Second

// rereadAfter is the pause before files that are being replaced are read again.
const rereadAfter = 20 * time.Millisecond

// watched is the parsed content of a few files that belong together, such as a
// certificate and its key. It is read again when one of them has changed.
//
// There is no lock: two handshakes that see a change at once both read, and the
// stamps that each stores are of what it read, so the next one sees whether that
// is the newest.
type watched[T any] struct {
	paths []string
	parse func(contents [][]byte) (T, error)
	log   *slog.Logger
	good  atomic.Pointer[content[T]]
	bad   atomic.Pointer[[]stamp] // the last that failed and was logged
}

type content[T any] struct {
	stamps  []stamp
	settled bool
	value   T
}

// stamp changes when a file does: written in place, renamed over, or its link
// turned.
type stamp struct {
	modified time.Time
	size     int64
	info     os.FileInfo
}

func (s stamp) equal(o stamp) bool {
	return s.modified.Equal(o.modified) && s.size == o.size && os.SameFile(s.info, o.info)
}

func newWatched[T any](log *slog.Logger, paths []string, parse func([][]byte) (T, error)) (*watched[T], error) {
	w := &watched[T]{paths: paths, parse: parse, log: log}
	for deadline := time.Now().Add(settledAfter); ; <-time.After(rereadAfter) {
		stamps, err := w.stat()
		if err != nil {
			return nil, err
		}
		c, err := w.read(stamps)
		switch {
		case err == nil:
			w.good.Store(c)
			return w, nil
		case settled(stamps) || time.Now().After(deadline):
			return nil, err
		}
	}
}

// settled tells of files that nobody has changed for a while. Those that were
// changed just now may be a new key beside the old certificate.
func settled(stamps []stamp) bool {
	return !slices.ContainsFunc(stamps, func(s stamp) bool { return time.Since(s.modified) < settledAfter })
}

// get is the newest content that is good.
func (w *watched[T]) get() T {
	old := w.good.Load()
	stamps, err := w.stat()
	if err == nil && old.settled && slices.EqualFunc(stamps, old.stamps, stamp.equal) {
		return old.value
	}
	var c *content[T]
	if err == nil {
		c, err = w.read(stamps)
	}
	if err != nil {
		w.complain(stamps, err)
		return old.value
	}
	w.bad.Store(nil)
	w.good.Store(c)
	if !slices.EqualFunc(stamps, old.stamps, stamp.equal) {
		w.log.Info("TLS files read again", "files", w.paths)
	}
	return c.value
}

// complain logs a failure once, not at every handshake.
func (w *watched[T]) complain(stamps []stamp, err error) {
	if last := w.bad.Swap(&stamps); last != nil && slices.EqualFunc(stamps, *last, stamp.equal) {
		return
	}
	w.log.Warn("TLS files cannot be used; those read before stay in force", "files", w.paths, "error", err.Error())
}

func (w *watched[T]) stat() ([]stamp, error) {
	stamps := make([]stamp, 0, len(w.paths))
	for _, p := range w.paths {
		info, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		stamps = append(stamps, stamp{info.ModTime(), info.Size(), info})
	}
	return stamps, nil
}

func (w *watched[T]) read(stamps []stamp) (*content[T], error) {
	c := &content[T]{stamps: stamps, settled: true}
	contents := make([][]byte, len(w.paths))
	now := time.Now()
	for i, p := range w.paths {
		var err error
		if contents[i], err = os.ReadFile(p); err != nil {
			return nil, err
		}
		c.settled = c.settled && now.Sub(stamps[i].modified) > settledAfter
	}
	value, err := w.parse(contents)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", w.paths[0], err)
	}
	c.value = value
	return c, nil
}
