package server

import (
	"flag"
	"os"
	"path/filepath"
)

// Flags are the flags of the server with their defaults, sorted by name.
func Flags() (all []*flag.Flag) {
	c, warn := DefaultConfig(), []string(nil)
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	defineFlags(fs, &c)
	defineOtherFlags(fs, &warn)
	fs.VisitAll(func(f *flag.Flag) { all = append(all, f) })
	return all
}

// programName is what the server was called by: kvorum, or etcd.
func programName() string { return filepath.Base(os.Args[0]) }
