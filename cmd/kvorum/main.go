// Command kvorum runs one member of a Kvorum cluster. It takes etcd's flags;
// without any it serves clients on localhost:2379 with its data in
// default.etcd.
package main

import (
	"os"

	"github.com/kvorum/kvorum/server"
)

func main() {
	os.Exit(server.Main(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
