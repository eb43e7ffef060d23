package ctl

import (
	"github.com/spf13/cobra"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

func newDowngrade(a *app) *cobra.Command {
	sub := func(use, short, done string, action pb.DowngradeRequest_DowngradeAction, wantsVersion bool) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Example: "  " + a.name + " downgrade " + use,
			RunE: func(_ *cobra.Command, args []string) error {
				r := &pb.DowngradeRequest{Action: action}
				if wantsVersion {
					if len(args) < 1 {
						return badArgs("TARGET_VERSION not provided")
					}
					if len(args) > 1 {
						return badArgs("too many arguments")
					}
					r.Version = args[0]
				}
				return a.online(func(c command) error {
					answer, err := c.Maintenance.Downgrade(c.ctx, r)
					if err != nil {
						return err
					}
					return c.Printer.Downgrade(done, answer)
				})
			},
		}
	}
	return group("downgrade", "Downgrade related commands",
		sub("cancel", "Cancel the ongoing downgrade action to cluster", "cancel", pb.DowngradeRequest_CANCEL, false),
		sub("enable <TARGET_VERSION>", "Start a downgrade action to cluster", "enable", pb.DowngradeRequest_ENABLE, true),
		sub("validate <TARGET_VERSION>", "Validate downgrade capability before starting downgrade", "validate", pb.DowngradeRequest_VALIDATE, true))
}
