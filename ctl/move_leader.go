package ctl

import (
	"strconv"

	"github.com/spf13/cobra"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

func newMoveLeader(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "move-leader <member>", Short: "Make another member the leader",
		Example: "  " + a.name + " move-leader c89feb932daef420",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArgs("move-leader command needs 1 argument")
			}
			target, err := strconv.ParseUint(args[0], 16, 64)
			if err != nil {
				return badArgs("%w", err)
			}
			return a.online(func(c command) error { return c.moveLeader(target) })
		},
	}
}

// moveLeader finds the leader among the endpoints, as only it can be asked.
func (c command) moveLeader(target uint64) error {
	for _, ep := range c.Endpoints() {
		s, err := c.Client.Status(c.ctx, ep)
		if err != nil {
			return err
		}
		if s.Header.GetMemberId() != s.Leader {
			continue
		}
		one, err := c.At(ep)
		if err != nil {
			return err
		}
		r, err := one.Maintenance.MoveLeader(c.ctx, &pb.MoveLeaderRequest{TargetID: target})
		if err != nil {
			return err
		}
		return c.Printer.MoveLeader(s.Leader, target, r)
	}
	return badArgs("no leader endpoint given at %v", c.Endpoints())
}
