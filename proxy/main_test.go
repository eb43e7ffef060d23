package proxy

import (
	"strings"
	"testing"
)

// If this fails, a script that calls etcd gateway or etcd grpc-proxy starts a
// member, or nothing.
func TestCommandsUnderAnyName(t *testing.T) {
	for _, c := range []struct {
		args string
		is   bool
		code int
		want string // in what is printed
	}{
		{"/usr/bin/etcd", false, 0, ""},
		{"etcd --name gateway", false, 0, ""},
		{"/usr/bin/etcd gateway", true, 0, "Usage:\n  etcd gateway [command]"},
		{"kvorum grpc-proxy help", true, 0, "start the grpc proxy"},
		{"kvorum grpc-proxy --help", true, 0, `Use "kvorum grpc-proxy [command] --help"`},
		{"etcd gateway start --help", true, 0, "Usage:\n  etcd gateway start [flags]"},
		{"etcd grpc-proxy help start", true, 0, "Usage:\n  etcd grpc-proxy start [flags]"},
		{"etcd gateway stop", true, 1, `Error: unknown command "stop" for "etcd gateway"`},
		{"etcd gateway start --bogus", true, 1, "Error: unknown flag: --bogus"},
		{"etcd grpc-proxy start --listen-addr", true, 1, "Error: flag needs an argument"},
	} {
		args := strings.Fields(c.args)
		if got := Is(args); got != c.is {
			t.Errorf("%s: is a proxy: %t", c.args, got)
		}
		if !c.is {
			continue
		}
		var out, failed strings.Builder
		code := Main(args, &out, &failed)
		printed := map[bool]string{true: out.String(), false: failed.String()}[c.code == 0]
		if code != c.code || !strings.Contains(printed, c.want) {
			t.Errorf("%s: code %d, printed %q; want %d, %q", c.args, code, printed, c.code, c.want)
		}
	}
}
