// Command kvctl controls a Kvorum or etcd cluster. It has the commands of
// etcdctl and the offline ones of etcdutl.
package main

import (
	"os"

	"github.com/kvorum/kvorum/ctl"
)

// version is that of this program; releases set it at link time.
var version = "0.1.0"

func main() {
	// Restore is nil until package server provides it.
	os.Exit(ctl.Main(ctl.OSConfig(version, nil)))
}
