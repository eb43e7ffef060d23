package v2

import (
	"context"
	"flag"
)

// Groups of commands, as help shows them.
const (
	groupKeys    = "Keys:"
	groupCluster = "Members and data:"
	groupAuth    = "Users and roles:"
)

func newGet() *command {
	var sorted, quorum bool
	return &command{
		name: "get", args: "<key>", short: "Print the value of a key", group: groupKeys, example: "get /config/mode",
		flags: func(f *flag.FlagSet) {
			f.BoolVar(&sorted, "sort", false, "sort what the server lists")
			boolFlag(f, &quorum, "quorum", "q", "ask the majority, not only the member that answers")
		},
		run: func(t *tool, args []string) error {
			key, err := keyArg(args)
			if err != nil {
				return err
			}
			return t.online(func(ctx context.Context, c *client) error {
				e, err := c.key(ctx, get(key, quorum, false, sorted))
				if err != nil {
					return refused(exitServer, err)
				}
				if e.Node.Dir {
					return badArgs("%s: is a directory", e.Node.Key)
				}
				t.printEvent(e)
				return nil
			})
		},
	}
}
