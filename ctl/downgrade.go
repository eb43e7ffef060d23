package ctl

import (
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

func newDowngrade(a *app) *cobra.Command {
	sub := func(use, short, done string, action pb.DowngradeRequest_DowngradeAction, wantsVersion bool) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Example: "  " + a.name + " downgrade " + strings.Replace(use, "<version>", "3.6", 1),
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
	return group("downgrade", "Prepare the cluster for an older version",
		sub("cancel", "Stay at the present version after all", "cancel", pb.DowngradeRequest_CANCEL, false),
		sub("enable <version>", "Begin the downgrade: members may now be replaced one by one", "enable", pb.DowngradeRequest_ENABLE, true),
		sub("validate <version>", "Tell whether a downgrade is possible", "validate", pb.DowngradeRequest_VALIDATE, true))
}
