// Package proxy has the two commands beside the server that stand between clients
// and a cluster: gateway, which forwards connections (proxy/tcp), and grpc-proxy,
// which understands what it forwards (proxy/grpcproxy).
//
// It promises etcd's names: kvorum gateway start and kvorum grpc-proxy start take
// the flags of etcd gateway start and etcd grpc-proxy start.
package proxy

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/kvorum/kvorum/proxy/command"
	"github.com/kvorum/kvorum/proxy/grpcproxy"
	"github.com/kvorum/kvorum/proxy/tcp"
)

// kind is one of the two commands.
type kind struct {
	does  string // for the help
	start func(name string, args []string, stdout, stderr io.Writer) int
}

func kinds() map[string]kind {
	return map[string]kind{
		"gateway":    {"start the gateway", tcp.Main},
		"grpc-proxy": {"start the grpc proxy", grpcproxy.Main},
	}
}

// Is tells whether the arguments of the process, its name the first, ask for a
// proxy.
func Is(args []string) bool {
	if len(args) < 2 {
		return false
	}
	_, ok := kinds()[args[1]]
	return ok
}

// Main runs the proxy that the arguments ask for and returns the exit code.
func Main(args []string, stdout, stderr io.Writer) int {
	k := kinds()[args[1]]
	name := filepath.Base(args[0]) + " " + args[1]
	action := "help"
	if len(args) > 2 {
		action = args[2]
	}
	switch action {
	case "start":
		return k.start(name+" start", args[3:], stdout, stderr)
	case "help", "-h", "-help", "--help":
		if len(args) > 3 && args[3] == "start" {
			return k.start(name+" start", []string{"--help"}, stdout, stderr)
		}
		printHelp(stdout, name, args[1], k)
		return command.ExitOK
	}
	fmt.Fprintf(stderr, "Error: unknown command %q for %q\n", action, name)
	printHelp(stderr, name, args[1], k)
	return command.ExitFailed
}

func printHelp(out io.Writer, name, short string, k kind) {
	fmt.Fprintf(out, "%s related command\n\nUsage:\n  %s [command]\n\nAvailable Commands:\n  start       %s\n\nFlags:\n  -h, --help   help for %s\n\nUse \"%s [command] --help\" for more information about a command.\n",
		short, name, k.does, short, name)
}
