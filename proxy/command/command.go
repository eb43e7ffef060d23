// Package command is what the proxies have in common as commands: flags as
// etcd's users write them, a log in the form of the server's, and an end by
// signal.
//
// It promises that a flag that is not understood never starts anything.
package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// Exit codes.
const (
	ExitOK     = 0
	ExitFailed = 1
)

const (
	signalMax  = time.Second // until a process dies of a signal to itself
	exitSignal = 128         // as shells write the end by a signal
)

// Parse reads the flags of a command, whose whole name is given. done says that
// there is nothing left to do, and code how the process ends then: usage was
// asked for, or a flag was wrong.
func Parse(name string, flags *flag.FlagSet, args []string, stdout, stderr io.Writer) (code int, done bool) {
	flags.SetOutput(io.Discard)
	usage := func(out io.Writer) {
		fmt.Fprintf(out, "Usage:\n  %s [flags]\n\nFlags:\n", name)
		flags.SetOutput(out)
		flags.PrintDefaults()
	}
	err := flags.Parse(args)
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("%q is not a flag", flags.Arg(0))
	}
	switch {
	case err == nil:
		return 0, false
	case errors.Is(err, flag.ErrHelp):
		usage(stdout)
		return ExitOK, true
	}
	text := err.Error()
	if unknown, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		text = "unknown flag: --" + unknown
	}
	fmt.Fprintf(stderr, "Error: %s\n", text)
	usage(stderr)
	return ExitFailed, true
}

// List is a flag whose values are separated by commas. Given more than once, it
// collects; what it holds before is the default.
type List struct {
	To    *[]string
	given bool
}

// String is the default, for the usage.
func (l *List) String() string {
	if l.To == nil {
		return ""
	}
	return strings.Join(*l.To, ",")
}

// Set adds values.
func (l *List) Set(text string) error {
	if !l.given {
		*l.To, l.given = nil, true
	}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*l.To = append(*l.To, part)
		}
	}
	return nil
}

// NewLog writes one JSON object per line, with etcd's keys.
func NewLog(out io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{AddSource: true, Level: level, ReplaceAttr: rename}))
}

func rename(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.TimeKey:
		return slog.String("ts", a.Value.Time().UTC().Format("2006-01-02T15:04:05.000000Z0700"))
	case slog.LevelKey:
		return slog.String("level", strings.ToLower(a.Value.String()))
	case slog.SourceKey:
		if src, ok := a.Value.Any().(*slog.Source); ok {
			parts := strings.Split(src.File, "/")
			return slog.String("caller", fmt.Sprintf("%s:%d", strings.Join(parts[max(0, len(parts)-2):], "/"), src.Line))
		}
	}
	if d, ok := a.Value.Any().(time.Duration); ok {
		return slog.String(a.Key, d.String())
	}
	return a
}

// UntilSignal runs until SIGTERM or SIGINT ends the context of run, and then
// ends the process by that signal, so that whoever waits for it sees how it
// ended. It returns the exit code when run fails before, and for process 1, which
// cannot die of a signal.
func UntilSignal(log *slog.Logger, run func(context.Context) error) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	got := make(chan syscall.Signal, 1)
	go func() {
		sig := (<-signals).(syscall.Signal)
		log.Info("received signal; shutting down", "signal", sig.String())
		got <- sig
		cancel()
	}()
	if err := run(ctx); err != nil {
		log.Error("stopped", "error", err.Error())
		return ExitFailed
	}
	select {
	case sig := <-got:
		if os.Getpid() != 1 {
			signal.Reset(sig)
			_ = syscall.Kill(os.Getpid(), sig)
			time.Sleep(signalMax)
			return exitSignal + int(sig) // whoever started us had the signal ignored
		}
	default:
	}
	return ExitOK
}
