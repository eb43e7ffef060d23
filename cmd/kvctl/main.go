// Command kvctl controls a Kvorum or etcd cluster. It has the commands of
// etcdctl and the offline ones of etcdutl.
package main

import (
	"context"
	"os"

	"github.com/kvorum/kvorum/ctl"
	"github.com/kvorum/kvorum/internal/version"
	"github.com/kvorum/kvorum/server"
)

func main() {
	restore := func(ctx context.Context, o ctl.RestoreOptions) error {
		return server.Restore(ctx, server.RestoreOptions(o))
	}
	os.Exit(ctl.Main(ctl.OSConfig(version.Kvorum, restore)))
}
