package ctl

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvorum/kvorum/ctl/bench"
)

// newRoot is the tool with all its commands.
func newRoot(a *app) *cobra.Command {
	root := bareRoot(a, "Read, write and watch the keys of a Kvorum cluster, and look after its members.")
	a.global.register(root.PersistentFlags())
	addGroups(root, []commandGroup{
		{"kv", "Key-value commands:", []*cobra.Command{
			newCompaction(a), newDel(a), newGet(a), newLease(a), newPut(a), newTxn(a), newWatch(a),
		}},
		{"cluster", "Cluster maintenance commands:", []*cobra.Command{
			newAlarm(a), newDefrag(a), newDowngrade(a), newEndpoint(a), newHashKV(a), newMember(a), newMigrate(a), newMigrateV2(a), newMoveLeader(a), newRecover(a), newSnapshot(a),
		}},
		{"concurrency", "Concurrency commands:", []*cobra.Command{newElect(a), newLock(a)}},
		{"auth", "Authentication commands:", []*cobra.Command{newAuth(a), newRole(a), newUser(a)}},
		{"utility", "Utility commands:", []*cobra.Command{newBench(a), newCerts(a), newCheck(a), newCompletion(a), newMakeMirror(a), newOptions(a), newVersion(a)}},
	})
	return root
}

// newOfflineRoot is the tool under the name etcdutl: what works on files of a
// stopped member or on snapshots, and knows no endpoints.
func newOfflineRoot(a *app) *cobra.Command {
	a.envRead = true // etcdutl reads no variables
	root := bareRoot(a, "Look after the files of stopped members and snapshots of a Kvorum cluster.")
	f := root.PersistentFlags()
	f.StringVarP(&a.global.writeOut, "write-out", "w", "simple", "how results look: simple, json, fields or table")
	f.DurationVar(&a.global.lockTimeout, "timeout", lockTimeout, "give up when another process has kept the database locked this long")
	addGroups(root, []commandGroup{
		{"cluster", "Cluster maintenance commands:", []*cobra.Command{
			newOfflineDefrag(a), newHashKV(a), newMigrate(a), group("snapshot", "Look at a snapshot, and make a new cluster from it", newSnapshotRestore(a), newSnapshotStatus(a)),
		}},
		{"utility", "Utility commands:", []*cobra.Command{newCompletion(a), newOptions(a), newVersion(a)}},
	})
	return root
}

// bareRoot has no commands and no flags yet.
func bareRoot(a *app, short string) *cobra.Command {
	root := &cobra.Command{
		Use: a.name, Short: short, SilenceErrors: true, SilenceUsage: true, SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().SortFlags = true
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	root.SetIn(a.Stdin)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{cmd, err} })
	root.SetUsageFunc(usage(a))
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(newHelp(a))
	return root
}

// commandGroup is a heading of the help with what is below it.
type commandGroup struct {
	id, title string
	commands  []*cobra.Command
}

func addGroups(root *cobra.Command, groups []commandGroup) {
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, c := range g.commands {
			c.GroupID = g.id
			root.AddCommand(c)
		}
	}
}

// usage shows the flags of a command without the global ones, which have a
// command of their own.
func usage(a *app) func(*cobra.Command) error {
	return func(c *cobra.Command) error {
		out := c.OutOrStdout()
		w := func(s string) { _, _ = out.Write([]byte(s)) }
		w("Usage:\n")
		if c.HasAvailableSubCommands() {
			w("  " + c.CommandPath() + " <command>\n")
			if c.HasParent() && c.LocalNonPersistentFlags().HasAvailableFlags() {
				w("  " + c.CommandPath() + " [flags]\n")
			}
		} else {
			w("  " + c.UseLine() + "\n")
		}
		if c.HasExample() {
			w("\nExample:\n" + c.Example + "\n")
		}
		if c.HasAvailableSubCommands() {
			usageCommands(c, w)
		}
		local := localFlags(c)
		if c.HasParent() && local.HasAvailableFlags() {
			w("\nFlags:\n" + local.FlagUsages())
		}
		w("\n")
		if c.HasAvailableSubCommands() {
			w("\"" + c.CommandPath() + " <command> --help\" explains a command. ")
		}
		w("\"" + a.name + " options\" lists the flags of all commands.\n")
		if !c.HasParent() && a.name != nameOffline {
			w("With " + apiVariable + "=2 in the environment, " + a.name + " has the commands of the v2 API.\n")
		}
		return nil
	}
}

// localFlags are the flags of a command and of its group.
func localFlags(c *cobra.Command) *pflag.FlagSet {
	own := pflag.NewFlagSet(c.Name(), pflag.ContinueOnError)
	add := func(f *pflag.Flag) {
		if c.Root().PersistentFlags().Lookup(f.Name) == nil {
			own.AddFlag(f)
		}
	}
	c.LocalFlags().VisitAll(add)
	c.InheritedFlags().VisitAll(add)
	return own
}

func usageCommands(c *cobra.Command, w func(string)) {
	list := func(title, group string) {
		w("\n" + title + "\n")
		for _, s := range c.Commands() {
			if s.GroupID == group && (s.IsAvailableCommand() || s.Name() == "help") {
				w("  " + pad(s.Name(), s.NamePadding()) + "  " + s.Short + "\n")
			}
		}
	}
	if len(c.Groups()) == 0 {
		list("Commands:", "")
	}
	for _, g := range c.Groups() {
		list(g.Title, g.ID)
	}
}

func pad(s string, width int) string {
	for len(s) < width {
		s += " "
	}
	return s
}

// newBench lets the environment set the global flags that bench reads.
func newBench(a *app) *cobra.Command {
	c := bench.Command()
	c.PersistentPreRunE = func(*cobra.Command, []string) error { return a.readEnv() }
	for _, each := range append(c.Commands(), c) {
		each.Example = strings.ReplaceAll(each.Example, nameOwn+" ", a.name+" ")
	}
	return c
}

// newHelp is `help`, for those who do not write --help.
func newHelp(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "help [command]", Short: "Explain a command", Example: "  " + a.name + " help lease grant", GroupID: "utility",
		RunE: func(_ *cobra.Command, args []string) error {
			c, _, err := a.root.Find(args)
			if err != nil {
				return err
			}
			return c.Help()
		},
	}
}

// group is a command that only has commands below it. A wrong one shows the
// help and is no failure, as scripts expect; people get a hint beside it.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.ArbitraryArgs, SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				hint := ""
				if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
					hint = "; did you mean " + strings.Join(near, " or ") + "?"
				}
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s has no command %q%s\n", cmd.CommandPath(), args[0], hint)
			}
			return cmd.Help()
		},
	}
	c.AddCommand(children...)
	c.Example = children[0].Example
	return c
}
