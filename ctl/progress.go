package ctl

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"
)

// bar shows on a terminal how much of something long is done. Any goroutine may
// add to it.
type bar struct {
	out   io.Writer // nil = silent
	title string
	total int64
	start time.Time

	mu   sync.Mutex
	seen int64     // guarded by mu
	last time.Time // guarded by mu: when the bar was drawn
}

// progress is a bar on standard error, silent unless that and standard output
// are terminals: in a pipe or a log it would be in the way.
func (a *app) progress(title string, total int64) *bar {
	b := &bar{title: title, total: total, start: time.Now()}
	if isTerminal(a.Stdout) && isTerminal(a.Stderr) {
		b.out = a.Stderr
	}
	return b
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) //nolint:gosec // a file descriptor
}

// Write counts bytes.
func (b *bar) Write(p []byte) (int, error) {
	b.add(int64(len(p)))
	return len(p), nil
}

func (b *bar) add(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen += n
	if now := time.Now(); b.out != nil && now.Sub(b.last) > 100*time.Millisecond {
		b.last = now
		b.draw()
	}
}

func (b *bar) draw() {
	const width = 30
	full := width
	if b.total > 0 {
		full = int((min(b.seen, b.total)*width + b.total/2) / b.total)
	}
	_, _ = fmt.Fprintf(b.out, "\r%s [%s%s] %s / %s ", b.title, strings.Repeat("#", full), strings.Repeat("-", width-full),
		humanize.Bytes(uint64(b.seen)), humanize.Bytes(uint64(max(b.total, b.seen)))) //nolint:gosec // sizes
}

func (b *bar) done() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.out != nil {
		b.draw()
		_, _ = fmt.Fprintln(b.out, time.Since(b.start).Round(time.Millisecond))
	}
}
