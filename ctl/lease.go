package ctl

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/ctl/print"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

func newLease(a *app) *cobra.Command {
	c := group("lease", "Give keys a time to live",
		newLeaseGrant(a), newLeaseRevoke(a), newLeaseTimeToLive(a), newLeaseKeepAlive(a), newLeaseList(a))
	return c
}

func leaseArg(args []string, missing string) (int64, error) {
	if len(args) != 1 {
		return 0, badArgs("%s", missing)
	}
	id, err := strconv.ParseInt(args[0], 16, 64)
	if err != nil {
		return 0, badArgs("bad lease ID arg (%w), expecting ID in Hex", err)
	}
	return id, nil
}

func newLeaseGrant(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "grant <seconds>", Short: "Create a lease that ends unless it is renewed in time", Example: "  " + a.name + " lease grant 60",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArgs("lease grant command needs TTL argument")
			}
			ttl, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return badArgs("bad TTL (%w)", err)
			}
			return a.online(func(c command) error {
				r, err := c.Grant(c.ctx, ttl)
				if err != nil {
					return fail(exitError, "failed to grant lease (%w)", err)
				}
				return c.Printer.Grant(r)
			})
		},
	}
}

func newLeaseRevoke(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "revoke <lease>", Short: "End a lease and delete its keys", Example: "  " + a.name + " lease revoke 32695410dcc0ca06",
		RunE: func(_ *cobra.Command, args []string) error {
			id, err := leaseArg(args, "lease revoke command needs 1 argument")
			if err != nil {
				return err
			}
			return a.online(func(c command) error {
				r, err := c.Revoke(c.ctx, id)
				if err != nil {
					return fail(exitError, "failed to revoke lease (%w)", err)
				}
				return c.Printer.Revoke(id, r)
			})
		},
	}
}

func newLeaseTimeToLive(a *app) *cobra.Command {
	var keys bool
	c := &cobra.Command{
		Use: "timetolive <lease>", Short: "Tell how long a lease has left",
		Example: "  " + a.name + " lease timetolive 32695410dcc0ca06 --keys",
		RunE: func(_ *cobra.Command, args []string) error {
			id, err := leaseArg(args, "lease timetolive command needs lease ID as argument")
			if err != nil {
				return err
			}
			return a.online(func(c command) error {
				r, err := c.TimeToLive(c.ctx, id, keys)
				if err != nil {
					return err
				}
				return c.Printer.TimeToLive(r, keys)
			})
		},
	}
	c.Flags().BoolVar(&keys, "keys", false, "also list the keys that live with the lease")
	return c
}

func newLeaseKeepAlive(a *app) *cobra.Command {
	var once bool
	c := &cobra.Command{
		Use: "keep-alive <lease>", Short: "Renew a lease again and again, until interrupted",
		Example: "  " + a.name + " lease keep-alive 32695410dcc0ca06",
		RunE: func(_ *cobra.Command, args []string) error {
			id, err := leaseArg(args, "lease keep-alive command needs lease ID as argument")
			if err != nil {
				return err
			}
			if once {
				return a.online(func(c command) error {
					r, err := c.KeepAliveOnce(c.ctx, id)
					if err != nil {
						return &failure{exitConnection, err}
					}
					return c.Printer.KeepAlive(r)
				})
			}
			return a.long(func(c command) error { return c.keepAlive(id) })
		},
	}
	c.Flags().BoolVar(&once, "once", false, "renew it one time and end")
	return c
}

func (c command) keepAlive(id int64) error {
	for r := range c.Client.KeepAlive(c.ctx, id) {
		if err := c.Printer.KeepAlive(r); err != nil {
			return err
		}
	}
	if c.ctx.Err() != nil {
		return &failure{code: exitInterrupted}
	}
	if c.Printer.Format() == print.Simple {
		c.printf("lease %s expired or revoked.\n", print.LeaseID(id))
	}
	return nil
}

func newLeaseList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the leases", Example: "  " + a.name + " lease list",
		RunE: func(*cobra.Command, []string) error {
			return a.online(func(c command) error {
				r, err := c.Leases.LeaseLeases(c.ctx, &pb.LeaseLeasesRequest{})
				if err != nil {
					return err
				}
				return c.Printer.Leases(r)
			})
		},
	}
}

// after starts a new command timeout, for commands that ask several endpoints.
func (c command) after() (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.app.ctx, c.global.commandTimeout)
}
