package ctl

import (
	"strconv"

	"github.com/spf13/cobra"
)

func newCompaction(a *app) *cobra.Command {
	var physical bool
	c := &cobra.Command{
		Use: "compaction <revision>", Short: "Forget the history before a revision",
		Example: "  " + a.name + " compaction 1234",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArgs("compaction command needs 1 argument")
			}
			rev, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return err
			}
			return a.online(func(c command) error {
				if _, err := c.Compact(c.ctx, rev, physical); err != nil {
					return err
				}
				a.printf("compacted revision %d\n", rev)
				return nil
			})
		},
	}
	c.Flags().BoolVar(&physical, "physical", false, "return only when the old revisions are gone from the disk")
	return c
}
