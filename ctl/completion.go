package ctl

import "github.com/spf13/cobra"

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
