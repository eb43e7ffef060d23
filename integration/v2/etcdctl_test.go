package v2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// ctlTable is what people type, one command line each; {0} is an index.
const ctlTable = `
set /foo bar
get /foo
mk /foo x
mk /mk x
mk --in-order /q job
mkdir /d1
mkdir /d1
setdir /d2 --ttl 100
updatedir --ttl 100 /d1
ls --sort
ls --sort -r -p /
get /d1
get --quorum /foo
update /foo baz
update /nokey baz
-o extended get /foo
-o json get /foo
-o extended set /foo next
set --ttl 1000 /foo baz
set --swap-with-value baz /foo q
set --swap-with-value nope /foo q
set --swap-with-index {-1} /foo q
rm --with-value nope /foo
rm --with-value q /foo
rm /foo
rm /d1
rmdir /d1
rmdir /q
rm -r /q
watch --after-index {1} -r /
cluster-health
member list
member remove 1234
member update 1234 http://127.0.0.1:1
user list
role list
user add root:pw
user add alice:pw
user add alice:pw
user get nobody
role add r1
role add r1
role grant --path /x/* --rw r1
role grant --path /x/* --rw r1
role get r1
role get nothing
user grant --roles r1 alice
user get alice
auth enable
auth enable
-u root:pw auth enable
set /x/1 1
-u alice:pw set /x/2 2
-u alice:pw set /y/2 2
-u alice:wrong set /x/2 2
-u alice:pw user list
-u root:pw role revoke --path /* --rw guest
set /x/1 1
-u root:pw role get guest
-u root:pw user revoke --roles r1 alice
-u root:pw user remove alice
-u root:pw role remove r1
-u root:pw auth disable
auth disable
user remove root
role remove guest
set a b
`

// ctl runs Debian's etcdctl against a server and gives all that it says.
func (s *server) ctl(binary, line string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), waitMax)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, strings.Fields(s.absolute(line))...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "ETCDCTL_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "ETCDCTL_API=2", "ETCDCTL_ENDPOINTS="+s.url)
	var out, failed bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &failed
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return fmt.Sprintf("exit %d\n%s--\n%s", cmd.ProcessState.ExitCode(), out.String(), failed.String())
}

var (
	ctlIndex  = regexp.MustCompile(`(?m)\[(\d+)\]$|Index: (\d+)$`)
	ctlMember = regexp.MustCompile(`[0-9a-f]{12,16}`)
)

// If this fails, the tool that people have typed v2 commands with for years
// does something else with Kvorum.
func TestDebianEtcdctl(t *testing.T) {
	binary, err := exec.LookPath("etcdctl")
	if err != nil {
		t.Skip("etcdctl is not installed: apt-get install etcd-client")
	}
	p := newPair(t)
	for line := range strings.Lines(ctlTable) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		p.sameAs(line, func(s *server) string {
			text := replaceGroups(ctlIndex, s.comparable(s.ctl(binary, line)), s.relative)
			text = urls.ReplaceAllString(text, "url")
			if strings.HasPrefix(line, "cluster-health") || strings.HasPrefix(line, "member list") {
				text = ctlMember.ReplaceAllString(text, "id")
			}
			if strings.Contains(text, "auth") || strings.Contains(line, "-u ") {
				text = ctlIndex.ReplaceAllString(text, "index") // etcd counts changes of users too
			}
			return text
		})
	}
}
