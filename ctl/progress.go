package ctl

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"
)

// bar shows on a terminal how much of something long is done.
type bar struct {
	out         io.Writer // nil = silent
	title       string
	total, seen int64
	start, last time.Time
}

// progress is a bar on standard error, silent unless that is a terminal.
func (a *app) progress(title string, total int64) *bar {
	b := &bar{title: title, total: total, start: time.Now()}
	if f, ok := a.Stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) { //nolint:gosec // a file descriptor
		b.out = f
	}
	return b
}

// Write counts bytes.
func (b *bar) Write(p []byte) (int, error) {
	b.seen += int64(len(p))
	if now := time.Now(); b.out != nil && now.Sub(b.last) > 100*time.Millisecond {
		b.last = now
		b.draw()
	}
	return len(p), nil
}

func (b *bar) draw() {
	const width = 30
	full := width
	if b.total > 0 {
		full = int(min(b.seen, b.total) * width / b.total)
	}
	_, _ = fmt.Fprintf(b.out, "\r%s [%s%s] %s / %s ", b.title, strings.Repeat("#", full), strings.Repeat("-", width-full),
		humanize.Bytes(uint64(b.seen)), humanize.Bytes(uint64(max(b.total, b.seen)))) //nolint:gosec // sizes
}

func (b *bar) done() {
	if b.out != nil {
		b.draw()
		_, _ = fmt.Fprintln(b.out, time.Since(b.start).Round(time.Millisecond))
	}
}
