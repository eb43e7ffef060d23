package ctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

type watchFlags struct {
	rev                      int64
	prefix, prevKV, progress bool
}

func (f *watchFlags) register(s *pflag.FlagSet) {
	s.Int64Var(&f.rev, "rev", 0, "start with this revision (0 = with the next change)")
	s.BoolVar(&f.prefix, "prefix", false, "all keys that begin with <key>")
	s.BoolVar(&f.prevKV, "prev-kv", false, "also print what was there before each change")
	s.BoolVar(&f.progress, "progress-notify", false, "also tell from time to time how far the watch has come")
}

// watchTarget is what to watch and what to run for each event.
type watchTarget struct {
	key     string
	options []client.Option
	run     []string
}

func newWatch(a *app) *cobra.Command {
	var f watchFlags
	var interactive bool
	c := &cobra.Command{
		Use: "watch <key> [end] [flags] [-- command...]", Short: "Print changes as they happen, or run a command for each",
		Long: `Print the changes of a key, or of the keys from one up to another, until interrupted.
A command after -- runs for each change, with ETCD_WATCH_REVISION, ETCD_WATCH_EVENT_TYPE,
ETCD_WATCH_KEY and ETCD_WATCH_VALUE in its environment.`,
		Example: "  " + a.name + " watch --prefix /services/ -- sh -c 'echo $ETCD_WATCH_KEY changed'",
		RunE: func(cmd *cobra.Command, args []string) error {
			if interactive {
				return a.long(a.watchInteractive)
			}
			run := []string(nil)
			if at := cmd.ArgsLenAtDash(); at >= 0 {
				args, run = args[:at], args[at:]
			}
			args, err := a.watchArgs(args)
			if err != nil {
				return err
			}
			t, err := f.target(args, run)
			if err != nil {
				return err
			}
			return a.long(func(c command) error { return c.follow(t) })
		},
	}
	f.register(c.Flags())
	c.Flags().BoolVarP(&interactive, "interactive", "i", false, "read \"watch ...\" and \"progress\" lines from standard input")
	return c
}

// watchArgs puts the keys that the environment gives before the arguments.
func (a *app) watchArgs(args []string) ([]string, error) {
	key, end := a.getenv("ETCDCTL_WATCH_KEY"), a.getenv("ETCDCTL_WATCH_RANGE_END")
	switch {
	case key == "" && len(args) == 0:
		return nil, badArgs("bad number of arguments")
	case key == "":
		return args, nil
	case len(args) > 0:
		return nil, badArgs("bad number of arguments (found conflicting environment key)")
	case end != "":
		return []string{key, end}, nil
	}
	return []string{key}, nil
}

func (f *watchFlags) target(args, run []string) (watchTarget, error) {
	if f.prefix && len(args) > 1 {
		return watchTarget{}, badArgs("`range_end` and `--prefix` are mutually exclusive")
	}
	t := watchTarget{key: args[0], run: run, options: []client.Option{client.Revision(f.rev), client.Fragment()}}
	if len(args) > 1 {
		t.options = append(t.options, client.End(args[1]))
	}
	if f.prefix {
		t.options = append(t.options, client.Prefix())
	}
	if f.prevKV {
		t.options = append(t.options, client.PrevKV())
	}
	if f.progress {
		t.options = append(t.options, client.ProgressNotify())
	}
	return t, nil
}

// follow prints what a watcher gets until it ends, which is always with an error.
func (c command) follow(t watchTarget) error {
	return c.report(c.Client.Watch(client.RequireLeader(c.ctx), t.key, t.options...), t.run)
}

func (c command) report(w *client.Watcher, run []string) error {
	for {
		r, err := w.Next()
		if r == nil {
			return c.watchEnd(err)
		}
		if r.Canceled {
			c.warnf("watch was canceled (%v)\n", err)
		}
		if r.IsProgress() {
			c.printf("progress notify: %d\n", r.Header.GetRevision())
		}
		if bad := c.Printer.Watch(r); bad != nil {
			return bad
		}
		if err != nil {
			return fail(exitInterrupted, "watch is canceled by the server")
		}
		for _, e := range r.Events {
			if len(run) > 0 {
				if err := c.runFor(e, r.Header.GetRevision(), run); err != nil {
					return err
				}
			}
		}
	}
}

func (c command) watchEnd(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, client.ErrClosed) {
		return &failure{code: exitInterrupted}
	}
	c.warnf("watch was canceled (%v)\n", err)
	return fail(exitInterrupted, "watch is canceled by the server")
}

// runFor runs the command of the user for one event.
func (c command) runFor(e *mvccpb.Event, rev int64, run []string) error {
	cmd := exec.CommandContext(c.ctx, run[0], run[1:]...) //nolint:gosec // what the user asked for
	cmd.Env = append(append([]string(nil), c.Env...),
		fmt.Sprintf("ETCD_WATCH_REVISION=%d", rev),
		fmt.Sprintf("ETCD_WATCH_EVENT_TYPE=%q", e.Type),
		fmt.Sprintf("ETCD_WATCH_KEY=%q", e.Kv.Key),
		fmt.Sprintf("ETCD_WATCH_VALUE=%q", e.Kv.Value))
	cmd.Stdout, cmd.Stderr = c.Stdout, c.Stderr
	if err := cmd.Run(); err != nil {
		return fail(exitError, "command %q failed: %w", strings.Join(run, " "), err)
	}
	return nil
}

// watchInteractive starts a watcher for each line of standard input.
func (a *app) watchInteractive(c command) error {
	in := bufio.NewReader(a.Stdin)
	lines := make(chan string)
	ended := make(chan error, 1)
	go func() { // reading standard input cannot be interrupted
		for {
			line, err := in.ReadString('\n')
			if line != "" || err == nil {
				lines <- strings.TrimRight(line, "\r\n")
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	failed := make(chan error, 1)
	for {
		select {
		case line := <-lines:
			if err := c.watchLine(line, failed); err != nil {
				return err
			}
		case err := <-ended:
			return fail(exitInput, "error reading watch request line: %w", err)
		case err := <-failed:
			return err
		case <-c.ctx.Done():
			return &failure{code: exitInterrupted}
		}
	}
}

// watchLine obeys one line of the interactive mode.
func (c command) watchLine(line string, failed chan<- error) error {
	args, err := words(line)
	if err != nil || len(args) == 0 || (args[0] != "watch" && args[0] != "progress") {
		c.warnf("Invalid command %s (only support watch)\n", line)
		return nil //nolint:nilerr // told; the next line may be better
	}
	if args[0] == "progress" {
		return c.RequestProgress(client.RequireLeader(c.ctx))
	}
	var f watchFlags
	s := pflag.NewFlagSet("watch", pflag.ContinueOnError)
	s.SetOutput(io.Discard)
	f.register(s)
	if err := s.Parse(args[1:]); err != nil {
		c.warnf("Invalid command %s (%v)\n", line, err)
		return nil
	}
	t, err := c.lineTarget(s, &f)
	if err != nil {
		c.warnf("Invalid command %s (%v)\n", line, err)
		return nil
	}
	w := c.Client.Watch(client.RequireLeader(c.ctx), t.key, t.options...)
	go func() { // one per watch of the user, until it ends
		err := c.report(w, t.run)
		select {
		case failed <- err:
		default: // another one has failed, which ends all
		}
	}()
	return nil
}

func (c command) lineTarget(s *pflag.FlagSet, f *watchFlags) (watchTarget, error) {
	keys, run := s.Args(), []string(nil)
	if at := s.ArgsLenAtDash(); at >= 0 {
		keys, run = keys[:at], keys[at:]
	}
	keys, err := c.watchArgs(keys)
	if err != nil {
		return watchTarget{}, err
	}
	return f.target(keys, run)
}
