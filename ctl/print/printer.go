package print

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// ErrFormat: choose another format with -w.
var ErrFormat = errors.New("not supported as output format")

// ErrUnknownFormat: the format does not exist.
var ErrUnknownFormat = errors.New("unsupported output format")

// Format is a value of -w.
type Format string

// The formats.
const (
	Simple   Format = "simple"
	JSON     Format = "json"
	Fields   Format = "fields"
	Table    Format = "table"
	Protobuf Format = "protobuf"
)

// Printer writes answers to one stream in one format.
type Printer struct {
	// ValueOnly and KeysOnly change the simple form of pairs.
	ValueOnly, KeysOnly bool

	out    io.Writer
	format Format
	hex    bool
}

// New makes a printer, or fails with ErrUnknownFormat.
func New(out io.Writer, format string, hex bool) (*Printer, error) {
	switch f := Format(format); f {
	case Simple, JSON, Fields, Table, Protobuf:
		return &Printer{out: out, format: f, hex: hex}, nil
	}
	return nil, ErrUnknownFormat
}

// Format is the format that it prints.
func (p *Printer) Format() Format { return p.format }

// forms are the ways to show one answer; a nil one does not exist.
type forms struct {
	simple func()
	fields func()
	table  func()
	json   any // the value to encode
	proto  proto.Message
}

func (p *Printer) show(f forms) error {
	run := func(show func()) error {
		if show == nil {
			return fmt.Errorf("%s %w", p.format, ErrFormat)
		}
		show()
		return nil
	}
	switch p.format {
	case Simple:
		return run(f.simple)
	case Fields:
		return run(f.fields)
	case Table:
		return run(f.table)
	case JSON:
		return p.encodeJSON(f.json)
	case Protobuf:
		if f.proto == nil {
			return run(nil)
		}
		b, err := proto.Marshal(f.proto)
		if err != nil {
			return fmt.Errorf("encode answer: %w", err)
		}
		_, err = p.out.Write(b)
		return err
	}
	return ErrUnknownFormat
}

func (p *Printer) encodeJSON(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	_, err = p.out.Write(append(b, '\n'))
	return err
}

func (p *Printer) line(format string, args ...any) {
	_, _ = fmt.Fprintf(p.out, format+"\n", args...)
}

// field writes one line of the fields form.
func (p *Printer) field(name string, value any) { p.line("%q : %v", name, value) }

func quoted(b []byte) string { return fmt.Sprintf("%q", b) }

// id shows a member or cluster id, lease one of a lease.
func (p *Printer) id(n uint64) string {
	if p.hex {
		return fmt.Sprintf("%x", n)
	}
	return fmt.Sprint(n)
}

func (p *Printer) lease(n int64) string {
	if p.hex {
		return LeaseID(n)
	}
	return fmt.Sprint(n)
}

// LeaseID is how leases are written: 16 hexadecimal digits.
func LeaseID(n int64) string { return fmt.Sprintf("%016x", uint64(n)) } //nolint:gosec // the bits of it

// headerFields writes a header; one without a revision (the cluster service's)
// leaves it out.
func (p *Printer) headerFields(h *pb.ResponseHeader) {
	p.field("ClusterID", p.id(h.GetClusterId()))
	p.field("MemberID", p.id(h.GetMemberId()))
	if h.GetRevision() != 0 {
		p.field("Revision", h.GetRevision())
	}
	p.field("RaftTerm", h.GetRaftTerm())
}

// bytes shows a key or a value in the simple form.
func (p *Printer) bytes(b []byte) string {
	if !p.hex {
		return string(b)
	}
	var s strings.Builder
	for _, c := range b {
		fmt.Fprintf(&s, "\\x%02x", c)
	}
	return s.String()
}

// tabular writes rows under headings in box drawing characters: headings in the
// middle of their column, cells at its right.
func (p *Printer) tabular(headings []string, rows [][]string) {
	widths := make([]int, len(headings))
	for _, r := range append([][]string{headings}, rows...) {
		for i, cell := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	rule := func(left, middle, right string) {
		parts := make([]string, len(widths))
		for i, w := range widths {
			parts[i] = strings.Repeat("─", w+2)
		}
		p.line("%s%s%s", left, strings.Join(parts, middle), right)
	}
	row := func(cells []string, leftShare int) {
		parts := make([]string, len(cells))
		for i, cell := range cells {
			space := widths[i] - utf8.RuneCountInString(cell)
			left := space / leftShare
			parts[i] = " " + strings.Repeat(" ", left) + cell + strings.Repeat(" ", space-left) + " "
		}
		p.line("│%s│", strings.Join(parts, "│"))
	}
	rule("┌", "┬", "┐")
	row(headings, 2)
	rule("├", "┼", "┤")
	for _, r := range rows {
		row(r, 1)
	}
	rule("└", "┴", "┘")
}
