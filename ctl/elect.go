package ctl

import (
	"errors"

	"github.com/spf13/cobra"
)

func newElect(a *app) *cobra.Command {
	var listen bool
	c := &cobra.Command{
		Use: "elect <name> [proposal]", Short: "Stand for leader among clients, or follow who leads",
		Example: "  " + a.name + " elect primary node1",
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) != 1 && len(args) != 2:
				return badArgs("elect takes one election name argument and an optional proposal argument")
			case listen && len(args) == 2:
				return badArgs("proposal given but -l is set")
			case !listen && len(args) == 1:
				return badArgs("no proposal argument but -l not set")
			case listen:
				return a.long(func(c command) error {
					err := c.Observe(c.ctx, args[0], c.Printer.Get)
					if c.ctx.Err() != nil {
						return nil //nolint:nilerr // interrupted, as it is meant to end
					}
					return err
				})
			}
			return a.long(func(c command) error { return c.campaign(args[0], args[1]) })
		},
	}
	c.Flags().BoolVarP(&listen, "listen", "l", false, "do not stand; print each leader")
	return c
}

func (c command) campaign(name, proposal string) (err error) {
	s, err := c.NewSession(c.ctx, 60)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	e := s.Election(name)
	if err := e.Campaign(c.ctx, proposal); err != nil {
		if c.ctx.Err() != nil {
			return &failure{exitInterrupted, errInterrupted}
		}
		return err
	}
	r, err := c.Get(c.ctx, e.Key())
	if err != nil {
		return err
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
		return errors.New("elect: session expired")
	}
}
