package ctl

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Description is a command as the help shows it.
type Description struct {
	Path    string // below the tool: "lease grant"; "" for the tool itself
	Group   string // heading in the help, of top commands
	Example string
	Runs    bool            // not only a group of commands
	Flags   map[string]Flag // its own, without the global ones; those of all commands for Path ""
}

// Flag is a flag of a command.
type Flag struct{ Default, Shorthand string }

// Describe tells which commands and flags the tool has under a name: kvctl,
// etcdctl or etcdutl.
func Describe(name string) []Description {
	a := newApp(context.Background(), Config{Args: []string{name}, Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard})
	all := []Description{{Flags: describeFlags(a.root.PersistentFlags()), Runs: true}}
	titles := map[string]string{}
	for _, g := range a.root.Groups() {
		titles[g.ID] = g.Title
	}
	var walk func(path string, parent *cobra.Command)
	walk = func(path string, parent *cobra.Command) {
		for _, c := range parent.Commands() {
			at := strings.TrimSpace(path + " " + c.Name())
			all = append(all, Description{
				Path: at, Group: titles[c.GroupID], Example: c.Example, Runs: !c.HasSubCommands(), Flags: describeFlags(localFlags(c)),
			})
			walk(at, c)
		}
	}
	walk("", a.root)
	return all
}

func describeFlags(set *pflag.FlagSet) map[string]Flag {
	flags := map[string]Flag{}
	set.VisitAll(func(f *pflag.Flag) { flags[f.Name] = Flag{f.DefValue, f.Shorthand} })
	return flags
}
