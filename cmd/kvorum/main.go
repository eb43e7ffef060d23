// Command kvorum runs one member of a Kvorum cluster. It takes etcd's flags;
// without any it serves clients on localhost:2379 with its data in
// default.etcd. kvorum gateway and kvorum grpc-proxy stand between clients and a
// cluster.
package main

import (
	"os"

	"github.com/kvorum/kvorum/proxy"
	"github.com/kvorum/kvorum/server"
)

func main() {
	if proxy.Is(os.Args) {
		os.Exit(proxy.Main(os.Args, os.Stdout, os.Stderr))
	}
	os.Exit(server.Main(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
