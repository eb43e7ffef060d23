package ctl

import (
	"errors"
	"fmt"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/client"
)

func newLock(a *app) *cobra.Command {
	var ttl int64
	c := &cobra.Command{
		Use: "lock <name> [flags] [-- command...]", Short: "Hold a lock until interrupted, or while a command runs",
		Example: "  " + a.name + " lock nightly -- ./backup.sh",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return badArgs("lock takes a lock name argument and an optional command to execute")
			}
			return a.long(func(c command) error { return c.lock(args[0], args[1:], ttl) })
		},
	}
	c.Flags().Int64Var(&ttl, "ttl", 10, "`seconds` after which the lock of a client that died is free again")
	return c
}

// lock holds the lock while the command runs, or until it is interrupted.
func (c command) lock(name string, run []string, ttl int64) (err error) {
	s, err := c.NewSession(c.ctx, ttl)
	if err != nil {
		return err
	}
	// Giving up the lease also releases the lock.
	defer func() { err = errors.Join(err, s.Close()) }()
	m := s.Mutex(name)
	if err := m.Lock(c.ctx); err != nil {
		if c.ctx.Err() != nil {
			return &failure{exitInterrupted, errInterrupted}
		}
		return err
	}
	if len(run) > 0 {
		return c.runLocked(m, run)
	}
	r, err := c.Get(c.ctx, m.Key())
	if err != nil {
		return err
	}
	if len(r.Kvs) == 0 {
		return errors.New("lock lost on init")
	}
	if err := c.Printer.Get(r); err != nil {
		return err
	}
	select {
	case <-c.ctx.Done():
		return nil
	case <-s.Done():
		if c.ctx.Err() != nil {
			return nil
		}
		return errors.New("session expired")
	}
}

func (c command) runLocked(m *client.Mutex, run []string) error {
	cmd := exec.Command(run[0], run[1:]...) //nolint:gosec,noctx // what the user asked for; it gets the signals itself
	cmd.Env = append(append([]string(nil), c.Env...), "ETCD_LOCK_KEY="+m.Key(),
		fmt.Sprintf("ETCD_LOCK_REV=%d", m.Header().GetRevision()))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return &failure{max(exit.ExitCode(), exitError), err}
	}
	return err
}
