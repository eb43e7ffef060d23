package v2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// Exit codes.
const (
	exitArgs      = 1 // bad arguments; users and roles: any failure
	exitConnect   = 2 // no endpoint can be reached
	exitUnknown   = 3 // no such command
	exitServer    = 4 // the server refuses
	exitUnhealthy = 5
)

// Config is the world that the tool runs in.
type Config struct {
	Name    string   // it was called by
	Args    []string // after the name
	Env     []string
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Version string
	// V3 are the names of the commands that need ETCDCTL_API=3.
	V3 []string
	// BackupDir copies the data directory of a stopped member.
	BackupDir func(context.Context, BackupOptions) error
	// BackupServer makes a data directory from the running member at an
	// endpoint.
	BackupServer func(context.Context, ServerBackup) error
}

// failure is an exit code, and what to say before; "" says nothing.
type failure struct {
	code int
	text string
}

func (f *failure) Error() string { return f.text }

// bare is a failure that is told as it is.
func bare(err error) error { return &failure{exitArgs, err.Error()} }

func badArgs(format string, args ...any) error {
	return &failure{exitArgs, fmt.Sprintf(format, args...)}
}

// refused is a failure of a command for keys.
func refused(code int, err error) error {
	text := "Error:  " + err.Error()
	if c := (*clusterError)(nil); errors.As(err, &c) {
		text += "\n" + c.detail()
	}
	return &failure{code, text}
}

// tool is one run.
type tool struct {
	Config
	ctx      context.Context // ends on SIGINT and SIGTERM
	global   globals
	commands []*command
}

// Main runs one command line and returns the exit code.
func Main(ctx context.Context, c Config) int {
	t := &tool{Config: c, ctx: ctx}
	t.commands = allCommands()
	err := t.run()
	if err == nil {
		return 0
	}
	f := &failure{code: exitArgs, text: err.Error()}
	errors.As(err, &f)
	if f.text != "" {
		t.warnf("%s\n", f.text)
	}
	return f.code
}

// Names are the commands that need ETCDCTL_API=2.
func Names() []string {
	var names []string
	for _, c := range allCommands() {
		names = append(names, c.name)
	}
	return names
}

func allCommands() []*command {
	all := []*command{
		newGet(), newLs(), newMk(), newMkdir(), newRm(), newRmdir(), newSet(), newSetdir(), newUpdate(), newUpdatedir(),
		newWatch(), newExecWatch(), newBackup(), newHealth(), newMember(), newAuth(), newRole(), newUser(),
	}
	for _, c := range all {
		for _, s := range c.sub {
			s.parent = c.name + " "
		}
	}
	return all
}

func (t *tool) run() error {
	args, err := t.global.parse(t)
	if err != nil {
		return t.usage(nil, err)
	}
	switch {
	case t.global.version:
		t.printf("%s version: %s\nAPI version: 2\n", t.Name, t.Version)
		return nil
	case t.global.help || len(args) == 0:
		t.help(nil)
		return nil
	case args[0] == "help" || args[0] == "h":
		return t.helpOn(args[1:])
	}
	c := find(t.commands, args[0])
	if c == nil {
		return t.unknown(args[0])
	}
	return t.start(c, args[1:])
}

// unknown says which API the command belongs to, if any.
func (t *tool) unknown(name string) error {
	text := fmt.Sprintf("No help topic for '%s'", name)
	if slices.Contains(t.V3, name) {
		text += fmt.Sprintf("\n%q is a command of the v3 API: unset ETCDCTL_API, or set ETCDCTL_API=3", name)
	}
	return &failure{exitUnknown, text}
}

func (t *tool) start(c *command, args []string) error {
	if len(c.sub) == 0 {
		rest, help, err := c.parse(args)
		switch {
		case err != nil:
			return t.usage(c, err)
		case help:
			t.help(c)
			return nil
		}
		return c.run(t, rest)
	}
	switch {
	case len(args) == 0 || args[0] == "--help" || args[0] == "-h":
		t.help(c)
		return nil
	case args[0] == "help" || args[0] == "h":
		return t.helpOn(append([]string{c.name}, args[1:]...))
	case strings.HasPrefix(args[0], "-"):
		return t.usage(c, fmt.Errorf("flag provided but not defined: %s", "-"+strings.TrimLeft(args[0], "-")))
	}
	s := find(c.sub, args[0])
	if s == nil {
		return &failure{exitUnknown, fmt.Sprintf("No help topic for '%s'", args[0])}
	}
	return t.start(s, args[1:])
}

func find(all []*command, name string) *command {
	for _, c := range all {
		if c.name == name {
			return c
		}
	}
	return nil
}

// usage is a wrong flag: help goes to standard output, the error to standard
// error.
func (t *tool) usage(c *command, err error) error {
	mark := ":"
	if c == nil {
		mark = "." // as etcdctl has it
	}
	t.printf("Incorrect Usage%s %v\n\n", mark, err)
	t.help(c)
	return bare(err)
}

func (t *tool) printf(format string, args ...any) { _, _ = fmt.Fprintf(t.Stdout, format, args...) }
func (t *tool) warnf(format string, args ...any)  { _, _ = fmt.Fprintf(t.Stderr, format, args...) }

func (t *tool) debugf(format string, args ...any) {
	if t.global.debug {
		t.warnf(format, args...)
	}
}

func (t *tool) getenv(name string) string {
	for _, pair := range slices.Backward(t.Env) {
		if n, v, _ := strings.Cut(pair, "="); n == name {
			return v
		}
	}
	return ""
}

// isFile reports whether r is a file of the system, so that a terminal may be
// behind it.
func isFile(r any) (*os.File, bool) {
	f, ok := r.(*os.File)
	return f, ok
}
