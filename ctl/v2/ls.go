package v2

import (
	"context"
	"flag"
)

func newLs() *command {
	var sorted, recursive, slash, quorum bool
	return &command{
		name: "ls", args: "[key]", short: "List a directory, that of all keys without an argument", group: groupKeys, example: "ls --sort -r -p /config",
		flags: func(f *flag.FlagSet) {
			f.BoolVar(&sorted, "sort", false, "sort by key")
			boolFlag(f, &recursive, "recursive", "r", "list what is below directories too")
			f.BoolVar(&slash, "p", false, "end directories with a slash")
			boolFlag(f, &quorum, "quorum", "q", "ask the majority, not only the member that answers")
		},
		run: func(t *tool, args []string) error {
			key := "/"
			if len(args) > 0 {
				key = args[0]
			}
			return t.online(func(ctx context.Context, c *client) error {
				e, err := c.key(ctx, get(key, quorum, recursive, sorted))
				if err != nil {
					return refused(exitServer, err)
				}
				if t.global.output == simple {
					t.list(e.Node, slash)
				} else {
					t.printEvent(e)
				}
				return nil
			})
		},
	}
}

// list prints a file, or all that is listed below a directory.
func (t *tool) list(n *node, slash bool) {
	if !n.Dir {
		t.printf("%s\n", n.Key)
	}
	for _, below := range n.Nodes {
		if below.Dir {
			end := ""
			if slash {
				end = "/"
			}
			t.printf("%s%s\n", below.Key, end)
		}
		t.list(below, slash)
	}
}
