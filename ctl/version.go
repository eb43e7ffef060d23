package ctl

import (
	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/client"
)

// etcdVersion is the release of etcdctl and etcdutl whose behaviour this tool has.
const etcdVersion = "3.7.1"

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version of this tool and of the API", Args: cobra.ArbitraryArgs,
		Example: "  " + a.name + " version",
		RunE: func(*cobra.Command, []string) error {
			v := etcdVersion
			if a.name == nameOwn {
				v = a.Version
			}
			a.printf("%s version: %s\n", a.name, v)
			a.printf("API version: %s\n", client.APIVersion)
			return nil
		},
	}
}
