package logs

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
)

// The values of Options.Format.
const (
	JSON    = "json"
	Console = "console"
)

// The outputs that are not file names. Default is the journal when systemd has
// connected stderr to it, and stderr otherwise; it stands alone.
const (
	Default = "default"
	Stderr  = "stderr"
	Stdout  = "stdout"
	Journal = "systemd/journal"
)

// Errors of Options.
var (
	// ErrMixedDefault: give default alone, or stderr in its place.
	ErrMixedDefault = errors.New(`multi logoutput for "default" is not supported yet`)
	// ErrRotateOneFile: rotation needs exactly one file among the outputs.
	ErrRotateOneFile = errors.New("--log-outputs requires a single file path when --log-rotate-config-json is defined")
	errEmptyOutput   = errors.New("--log-outputs: an output is empty; it is default, stderr, stdout, systemd/journal or a file name")
)

// Options say what is logged, how, and where to.
type Options struct {
	Level    slog.Level // the least that is logged
	Format   string     // JSON or Console
	Outputs  []string   // Default, Stderr, Stdout, Journal, or names of files
	Rotation *Rotation  // of the one file; nil: not rotated
}

// Check tells whether the options fit together. It opens nothing.
func (o Options) Check() error {
	files := 0
	for _, out := range o.Outputs {
		switch out {
		case "":
			return errEmptyOutput
		case Default:
			if len(o.Outputs) > 1 {
				return ErrMixedDefault
			}
		case Stderr, Stdout, Journal:
		default:
			files++
		}
	}
	if o.Rotation != nil && files != 1 {
		return ErrRotateOneFile
	}
	return nil
}

// Open opens the outputs, which stay open as long as the process lives.
func Open(o Options) (*slog.Logger, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	var sinks []sink
	for _, name := range slices.Compact(slices.Clone(o.Outputs)) {
		s, err := o.open(name)
		if err != nil {
			return nil, fmt.Errorf("--log-outputs: %w", err)
		}
		sinks = append(sinks, s)
	}
	return newLogger(o.Level, o.Format, sinks...), nil
}

// New is a logger of JSON lines to one writer.
func New(to io.Writer, level slog.Level) *slog.Logger {
	return newLogger(level, JSON, stream{to})
}

func (o Options) open(name string) (sink, error) {
	switch name {
	case Default:
		if stderrIsJournal(os.Getenv("JOURNAL_STREAM")) {
			return dialJournal(journalSocket, identifier())
		}
		return stream{os.Stderr}, nil
	case Stderr:
		return stream{os.Stderr}, nil
	case Stdout:
		return stream{os.Stdout}, nil
	case Journal:
		return dialJournal(journalSocket, identifier())
	}
	w, err := OpenFile(name, o.Rotation)
	return stream{w}, err
}

// identifier is the program's name for the journal.
func identifier() string { return filepath.Base(os.Args[0]) }

// OpenFile opens a file for appending lines; rotation may be nil.
func OpenFile(name string, rotation *Rotation) (io.WriteCloser, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // the operator names the file
	if err != nil || rotation == nil {
		return f, err
	}
	// The name can be written to; the rotating writer opens it by itself.
	if err := f.Close(); err != nil {
		return nil, err
	}
	return rotation.writer(name), nil
}

// sink is where lines go: a stream or the journal.
type sink interface {
	// writeLine takes one line that ends in a newline.
	writeLine(level slog.Level, line []byte) error
}

// stream is a sink of bytes.
type stream struct{ io.Writer }

func (s stream) writeLine(_ slog.Level, line []byte) error {
	_, err := s.Write(line)
	return err
}
