package ctl

import (
	"slices"

	"github.com/spf13/cobra"
)

// flagValues are what the shell offers after a flag that takes one of a few
// words; after others it offers files.
func flagValues() map[string][]string {
	return map[string][]string{
		"write-out":   {"simple", "json", "fields", "protobuf", "table"},
		"order":       {"ASCEND", "DESCEND"},
		"sort-by":     {"CREATE", "KEY", "MODIFY", "VALUE", "VERSION"},
		"consistency": {"l", "s"},
		"load":        {"s", "m", "l", "xl"},
	}
}

// completeFlags tells the shell about flagValues, for a command and all below.
func completeFlags(c *cobra.Command) {
	for name, values := range flagValues() {
		if c.LocalFlags().Lookup(name) == nil {
			continue
		}
		offer := cobra.FixedCompletions(slices.Clone(values), cobra.ShellCompDirectiveNoFileComp)
		if err := c.RegisterFlagCompletionFunc(name, offer); err != nil {
			panic(err) // registered twice
		}
	}
	for _, child := range c.Commands() {
		completeFlags(child)
	}
}

func newCompletion(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", Short: "Print a script that completes commands in a shell",
		Example:   "  " + a.name + " completion bash > /etc/bash_completion.d/" + a.name,
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		RunE: func(_ *cobra.Command, args []string) error {
			switch args[0] {
			case "zsh":
				return a.root.GenZshCompletion(a.Stdout)
			case "fish":
				return a.root.GenFishCompletion(a.Stdout, true)
			case "powershell":
				return a.root.GenPowerShellCompletionWithDesc(a.Stdout)
			}
			return a.root.GenBashCompletionV2(a.Stdout, true)
		},
	}
}
