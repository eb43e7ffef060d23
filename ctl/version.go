package ctl

import (
	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/client"
)

// etcdVersion is the release of etcdctl whose behaviour this one has.
const etcdVersion = "3.7.1"

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version of this tool and of the API", Args: cobra.ArbitraryArgs,
		Example: "  " + a.name + " version",
		RunE: func(*cobra.Command, []string) error {
			if a.name == "etcdctl" {
				a.printf("etcdctl version: %s\n", etcdVersion)
			} else {
				a.printf("%s version: %s\n", a.name, a.Version)
			}
			a.printf("API version: %s\n", client.APIVersion)
			return nil
		},
	}
}
