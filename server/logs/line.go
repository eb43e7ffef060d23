package logs

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"path"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// timeLayout is RFC 3339 with microseconds.
const timeLayout = "2006-01-02T15:04:05.000000Z0700"

// nameKey is the attribute that names a part of the server.
const nameKey = "logger"

// handler writes a record as one line. Its head is written here, its attributes
// by slog's own JSON handler, which knows every kind of value.
type handler struct {
	*writer
	level slog.Level
	name  string       // of the part that logs; "" is the server itself
	attrs slog.Handler // writes an object into writer.object
}

// writer is what all handlers of a log share.
type writer struct {
	console bool
	sinks   []sink

	mu     sync.Mutex   // guards the buffers and the order of lines
	line   bytes.Buffer // the line at hand
	object bytes.Buffer // its attributes
}

func newLogger(level slog.Level, format string, sinks ...sink) *slog.Logger {
	w := &writer{console: format == Console, sinks: sinks}
	attrs := slog.NewJSONHandler(&w.object, &slog.HandlerOptions{Level: level, ReplaceAttr: onlyAttrs})
	return slog.New(&handler{writer: w, level: level, attrs: attrs})
}

// onlyAttrs drops what the head of the line has, and writes durations as text.
func onlyAttrs(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
		return slog.Attr{}
	}
	if d, ok := a.Value.Any().(time.Duration); ok {
		return slog.String(a.Key, d.String())
	}
	return a
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	for i, a := range attrs {
		if a.Key == nameKey {
			next.name = a.Value.String()
			attrs = append(append([]slog.Attr{}, attrs[:i]...), attrs[i+1:]...)
			break
		}
	}
	next.attrs = h.attrs.WithAttrs(attrs)
	return &next
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	next := *h
	next.attrs = h.attrs.WithGroup(name)
	return &next
}

// Handle implements slog.Handler.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.encodeAttrs(ctx, r)
	h.line.Reset()
	if h.console {
		h.consoleLine(r)
	} else {
		h.jsonLine(r)
	}
	h.line.WriteByte('\n')
	for _, s := range h.sinks {
		_ = s.writeLine(r.Level, h.line.Bytes()) // there is nowhere to tell it
	}
	return nil
}

// encodeAttrs leaves the attributes as an object without newline in writer.object.
func (h *handler) encodeAttrs(ctx context.Context, r slog.Record) {
	h.object.Reset()
	bare := slog.NewRecord(time.Time{}, r.Level, "", 0)
	r.Attrs(func(a slog.Attr) bool {
		bare.AddAttrs(a)
		return true
	})
	_ = h.attrs.Handle(ctx, bare) // the buffer takes all
	h.object.Truncate(max(0, h.object.Len()-1))
}

func (h *handler) jsonLine(r slog.Record) {
	w := &h.line
	w.WriteString(`{"level":"` + levelName(r.Level) + `","ts":"` + timeText(r.Time) + `"`)
	if h.name != "" {
		w.WriteString(`,"logger":`)
		writeQuoted(w, h.name)
	}
	w.WriteString(`,"caller":`)
	writeQuoted(w, caller(r.PC))
	w.WriteString(`,"msg":`)
	writeQuoted(w, r.Message)
	if attrs := h.object.Bytes(); len(attrs) > len("{}") {
		w.WriteByte(',')
		w.Write(attrs[1:])
		return
	}
	w.WriteByte('}')
}

func (h *handler) consoleLine(r slog.Record) {
	w := &h.line
	w.WriteString(timeText(r.Time) + "\t" + levelName(r.Level) + "\t")
	if h.name != "" {
		w.WriteString(h.name + "\t")
	}
	w.WriteString(caller(r.PC) + "\t" + strings.ReplaceAll(r.Message, "\n", `\n`))
	if attrs := h.object.Bytes(); len(attrs) > len("{}") {
		w.WriteByte('\t')
		w.Write(attrs)
	}
}

func levelName(l slog.Level) string { return strings.ToLower(l.String()) }

func timeText(t time.Time) string { return t.UTC().Format(timeLayout) }

// writeQuoted writes a JSON string.
func writeQuoted(w *bytes.Buffer, s string) {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always can be
	w.Truncate(w.Len() - 1)
}

// caller is folder/file.go:line.
func caller(pc uintptr) string {
	frame, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	if frame.File == "" {
		return "unknown"
	}
	dir, file := path.Split(frame.File)
	return path.Base(dir) + "/" + file + ":" + strconv.Itoa(frame.Line)
}
