package v2

import (
	"bytes"
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/process"
)

// runTool runs a command line and gives all that it says, and its exit code.
func runTool(t *testing.T, binary string, env []string, line string) (out string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitMax)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, words(line)...)
	cmd.Env = env
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	_ = cmd.Run() // the code tells
	return text.String(), cmd.ProcessState.ExitCode()
}

// waitFor asks until the answer is yes.
func waitFor(t *testing.T, what string, ask func() (answer string, yes bool)) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(waitMax); ; <-tick.C {
		answer, yes := ask()
		if yes {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never came: %s; but %s", what, answer)
		}
	}
}

// If this fails, a monitoring script reads another verdict from kvctl
// cluster-health than from etcdctl while members are down.
func TestClusterHealthWithDeadMembers(t *testing.T) {
	etcdctl, err := exec.LookPath("etcdctl")
	if err != nil {
		t.Skip("etcdctl is not installed: apt-get install etcd-client")
	}
	kvctl, v2 := toolBinary(t), []string{"ETCDCTL_API=2"}
	c := start(t, process.Options{Binary: kvorumBinary(t), Size: 3})
	line := "--endpoints " + c.Members[0].ClientURL + " cluster-health" // the members tell of each other
	for dead, want := range []string{"cluster is healthy", "cluster is degraded", "cluster is unavailable"} {
		if dead > 0 {
			c.Members[dead].Kill()
			c.Members[dead].WaitExit()
		}
		// A busy machine may lose its leader between the two: then both are asked again.
		var theirs, ours string
		waitFor(t, want+" from both", func() (string, bool) {
			var code [2]int
			theirs, code[0] = runTool(t, etcdctl, v2, line)
			ours, code[1] = runTool(t, kvctl, v2, line)
			if !strings.Contains(theirs, want) || !strings.Contains(ours, want) {
				return theirs, false
			}
			if dead < 2 && (strings.Contains(theirs, "unhealthy") || strings.Contains(ours, "unhealthy")) {
				return theirs, false // a leader is being elected
			}
			if code[0] != code[1] {
				t.Fatalf("exit codes: etcdctl %d, kvctl %d", code[0], code[1])
			}
			return theirs, true
		})
		if ours != theirs {
			t.Errorf("%d dead:\nkvctl   %s\netcdctl %s", dead, ours, theirs)
		}
	}
}

// If this fails, who moves from the v2 API of etcd 3.4 to v3 keys of Kvorum
// loses keys, values or TTLs on the way.
func TestMigrateFromEtcd(t *testing.T) {
	etcd := start(t, process.Options{Binary: debianEtcd(t), Size: 1, Args: []string{"--enable-v2"}}).Members[0]
	kvorum := start(t, process.Options{Binary: kvorumBinary(t), Size: 1}).Members[0]
	kvctl := toolBinary(t)
	for _, line := range []string{
		"set /config/mode dark", "set '/config/ü <&>' 'a b%'", "set --ttl 5000 /session 1", "mkdir /empty", "set /_hidden/x h", "mk --in-order /q one",
	} {
		if out, code := runTool(t, kvctl, []string{"ETCDCTL_API=2"}, "--endpoints "+etcd.ClientURL+" "+line); code != 0 {
			t.Fatalf("%s: %s", line, out)
		}
	}
	v3 := []string{"ETCDCTL_API=3", "ETCDCTL_ENDPOINTS=" + kvorum.ClientURL}
	for _, c := range []struct{ line, want string }{
		{"migrate-v2 --dry-run --from " + etcd.ClientURL, "4 keys to copy, 1 of them with a lease; 0 there already, 0 clashes, 1 empty directories\n"},
		{"get --prefix / --keys-only", ""},
		{"migrate-v2 --from " + etcd.ClientURL, "4 keys copied, 1 of them with a lease; 0 there already, 0 clashes, 1 empty directories\n"},
		{"get /config/mode", "/config/mode\ndark\n"},
		{"get '/config/ü <&>' --print-value-only", "a b%\n"},
		{"get --prefix /q --print-value-only", "one\n"},
		{"get --prefix /_", ""},
		{"migrate-v2 --path /_hidden --from " + etcd.ClientURL, "1 keys copied, 0 of them with a lease; 0 there already, 0 clashes, 0 empty directories\n"},
		{"get --prefix /_", "/_hidden/x\nh\n"},
		{"migrate-v2 --from " + etcd.ClientURL, "0 keys copied, 0 of them with a lease; 4 there already, 0 clashes, 1 empty directories\n"},
	} {
		if out, code := runTool(t, kvctl, v3, c.line); code != 0 || !strings.HasSuffix(out, c.want) || c.want == "" && out != "" {
			t.Errorf("%s: %d %q, want %q", c.line, code, out, c.want)
		}
	}
	out, _ := runTool(t, kvctl, v3, "lease list")
	_, id, _ := strings.Cut(strings.TrimSpace(out), "\n")
	if out, _ = runTool(t, kvctl, v3, "lease timetolive --keys "+id); !strings.Contains(out, "/session") {
		t.Errorf("the key with a TTL has the lease %q: %s", id, out)
	}
}
