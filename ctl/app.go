package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/ctl/print"
)

// Exit codes.
const (
	exitError       = 1
	exitConnection  = 2
	exitInput       = 3
	exitFeature     = 4
	exitInterrupted = 5
	exitArgs        = 128
)

// Config is the world that the tool runs in.
type Config struct {
	Args   []string // the name it was called by first
	Env    []string
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// Version is that of this program.
	Version string
	// Restore writes a data directory from a snapshot.
	Restore func(context.Context, RestoreOptions) error
	// Resolver asks the DNS for SRV records; nil is the system's.
	Resolver *net.Resolver
}

// OSConfig is the Config of this process.
func OSConfig(version string, restore func(context.Context, RestoreOptions) error) Config {
	return Config{os.Args, os.Environ(), os.Stdin, os.Stdout, os.Stderr, version, restore, nil}
}

// failure is an error with an exit code. One without an error has said all
// that there is to say.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string {
	if f.err == nil {
		return ""
	}
	return f.err.Error()
}
func (f *failure) Unwrap() error { return f.err }

func fail(code int, format string, args ...any) error {
	return &failure{code, fmt.Errorf(format, args...)}
}

func badArgs(format string, args ...any) error { return fail(exitArgs, format, args...) }

// app is one run of the tool.
type app struct {
	Config
	ctx     context.Context // ends on SIGINT and SIGTERM
	name    string
	global  globalFlags
	root    *cobra.Command
	log     *slog.Logger
	envRead bool
}

// Main runs the tool and returns its exit code.
func Main(c Config) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends at once
	a := newApp(ctx, c)
	if a.name == nameOffline { // it reads no variables
		a.root.SetArgs(c.Args[1:])
		return a.report(a.root.ExecuteContext(ctx))
	}
	switch version := a.getenv(apiVariable); version {
	case "", "3":
	case "2":
		return a.runV2()
	default:
		a.warnf("unsupported API version %s\n", version)
		return exitError
	}
	a.root.SetArgs(c.Args[1:])
	return a.report(a.root.ExecuteContext(ctx))
}

// The names that the tool may be called by, as a link or a copy. Under each it
// behaves as the program of that name.
const (
	nameOwn     = "kvctl"
	nameOnline  = "etcdctl"
	nameOffline = "etcdutl"
)

func newApp(ctx context.Context, c Config) *app {
	a := &app{Config: c, ctx: ctx, name: nameOwn, log: newLogger(c.Stderr)}
	for _, name := range []string{nameOnline, nameOffline} {
		if strings.HasPrefix(filepath.Base(c.Args[0]), name) {
			a.name = name
		}
	}
	if a.name == nameOffline {
		a.root = newOfflineRoot(a)
	} else {
		a.root = newRoot(a)
	}
	completeFlags(a.root)
	return a
}

// report tells what went wrong and returns the exit code.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	if detail := client.Detail(err); detail != err && errors.Is(err, context.DeadlineExceeded) { //nolint:errorlint // identity
		a.log.Warn("the call ran into its deadline", "error", detail.Error())
	}
	code := exitError
	if f := (*failure)(nil); errors.As(err, &f) {
		code = f.code
	}
	if u := (*usageError)(nil); errors.As(err, &u) {
		_, _ = fmt.Fprintf(a.Stderr, "Error: %v\n%s", u.err, u.cmd.UsageString())
		return code
	}
	if text := err.Error(); text != "" {
		_, _ = fmt.Fprintf(a.Stderr, "Error: %s\n", strings.TrimRight(text, "\n"))
		if strings.HasPrefix(text, "unknown command") && !a.hintV2(text) {
			a.hint(text)
		}
	}
	return code
}

func (a *app) hint(text string) {
	if strings.Contains(text, "Did you mean") {
		_, _ = fmt.Fprintln(a.Stderr)
	}
	_, _ = fmt.Fprintf(a.Stderr, "Run '%s --help' for usage.\n", a.name)
}

// usageError is a wrong flag: the usage of its command helps.
type usageError struct {
	cmd *cobra.Command
	err error
}

func (u *usageError) Error() string { return u.err.Error() }

func (a *app) printf(format string, args ...any) { _, _ = fmt.Fprintf(a.Stdout, format, args...) }
func (a *app) warnf(format string, args ...any)  { _, _ = fmt.Fprintf(a.Stderr, format, args...) }

// printer is that of -w; what it refuses is exit code 4.
func (a *app) printer() (*print.Printer, error) {
	if err := a.readEnv(); err != nil {
		return nil, err
	}
	p, err := print.New(a.Stdout, a.global.writeOut, a.global.hex)
	if err != nil {
		return nil, &failure{exitFeature, err}
	}
	return p, nil
}

func shown(err error) error {
	if errors.Is(err, print.ErrFormat) {
		return &failure{exitFeature, err}
	}
	return err
}

// command is what an online command gets to work with.
type command struct {
	*app
	*client.Client
	Printer *print.Printer
	ctx     context.Context // ends with the command timeout too
}

// online connects and runs f within the command timeout.
func (a *app) online(f func(command) error) error { return a.connected(true, f) }

// long is online without the timeout: until it is done or interrupted.
func (a *app) long(f func(command) error) error { return a.connected(false, f) }

func (a *app) connected(timeout bool, f func(command) error) error {
	p, err := a.printer()
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := a.ctx, context.CancelFunc(func() {})
	if timeout {
		ctx, cancel = context.WithTimeout(a.ctx, a.global.commandTimeout)
	}
	defer cancel()
	return shown(f(command{a, c, p, ctx}))
}
