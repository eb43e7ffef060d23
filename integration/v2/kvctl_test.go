package v2

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/process"
)

// kvctlTable is typed into etcdctl against etcd and into kvctl against Kvorum.
// {0} is an index; 'quotes' hold one word together; what follows " < " is
// standard input, with \n for line ends.
const kvctlTable = `
set
set /a
set /a < from stdin\n
set /a < two\nlines\n
set a b
set /a b c
set a b --ttl 100
set a --ttl 100 b
set --ttl x a b
set --ttl=-1 a b
set --bogus a b
set /a v --ttl=700
set /a v -ttl 700
set /a --ttl
set /a --ttl 10
set -x
set x -
get x
set a -- -k
set -- a -k
set -- -k v
get -- -k
set /a -k
set /a --bogus
set '' x
set / x
set // x
set /b//c x
get b//c
get /b/../a
set /u 'a b&c=é%'
get /u
set '/k é/%41' 'x y'
get '/k é/%41'
-o json get '/k é/%41'
set /html '<a href="x">&</a>'
-o json get /html
set /swap one
set --swap-with-value one /swap two
set --swap-with-value one /swap three
set --swap-with-value '' /swap four
set --swap-with-index 0 /swap five
set --swap-with-index {-1} /swap six
set --swap-with-value nope --swap-with-index {-1} /swap six
set --swap-with-index x /swap six
set --swap-with-value a /missing x
mk
mk /mk
mk /mk < stdin
mk /mk again
mk --ttl 1000 /mkttl v
mk --in-order
mk --in-order /q
mk --in-order /q one
mk --in-order --ttl 900 /q two
-o json mk --in-order /q three
-o extended mk --in-order /q four
mk /q file
ls --sort /q
update
update /a
update /a x
update /a < y
update --ttl 1000 /a x
-o json get /a
update /missing x
update /q x
mkdir
mkdir /d
mkdir /d
mkdir /d/e extra
mkdir --ttl 1000 /d2
mkdir --ttl x /d2
-o json mkdir /j
-o extended mkdir /j2
mkdir /a/below
setdir
setdir /d
setdir --ttl 10 /d
setdir /new
setdir --ttl 1000 /a
updatedir
updatedir /d
updatedir --ttl 1000 /d
updatedir --ttl 0 /d
updatedir /missing
updatedir --ttl 1000 /swap
-o json updatedir --ttl 1000 /d2
get
get /missing
get /missing/deeper
get /d
-o json get /d
-o extended get /d
-o bogus get /swap
get swap extra
get swap -q
get -q swap
get --sort swap
get --quorum=false swap
get --quorum=maybe swap
get --sort=x swap
-o extended get /swap
-o=json get /swap
--output json get /swap
--output=extended get /swap
-o JSON get /swap
-o json get /missing
-o extended get /missing
ls --sort
ls --sort -p
ls --sort -r -p
ls --sort --recursive --quorum
ls --sort -r /q
ls /missing
ls /swap
ls /swap extra
ls -p /swap
-o extended ls
-o extended ls /swap
-o json ls --sort /q
-o json ls --sort -r /d
-o json ls /d/e
rm
rm /missing
rm /d
rm --dir /d
rm --with-value x /missing
rm --with-index {-1} /swap
rm --with-value nope /swap
rm --with-value nope --with-index {-1} /swap
rm --with-value five /d
rm --with-index x /swap
rm --with-value five /swap
-o json rm /html
set /empty ''
rm /empty
set /ext 1
-o extended set /ext 2
-o extended rm /ext
-o json set /ext 1
-o json set --ttl 100 /ext 2
-o json rm /ext
rmdir
rmdir /mk
rmdir /d/e
-o json rmdir /j
-o extended rmdir /j2
rmdir /q
rmdir /missing
rm -r /q
rm --recursive --dir /d
rm -r /
rm -r /missing
watch
watch --after-index
watch --after-index x /a
watch --after-index {1} -r /
-o json watch --after-index {1} -r /
-o extended watch --after-index {1} -r /
watch --after-index {1} /a
watch /a --after-index {1}
exec-watch
exec-watch /a
exec-watch -r /a
member
member bogus
member list
member list x
member list --foo
member add
member add a
member add a b
member add a http://127.0.0.1:5 c
member add a http://127.0.0.1
member add a http://127.0.0.1:5/path
member remove
member remove a b
member remove 1234
member remove xyz
member update
member update 1234
member update 1234 bad
member update a b c
member update 1234 http://127.0.0.1:5
cluster-health
cluster-health extra
--no-sync cluster-health
--no-sync member list
--no-sync get /x
--debug --no-sync set /a c
--debug set /a b
--debug set --ttl 500 /a b
--debug mk /m b
--debug mk --in-order /q b
--debug set --swap-with-value b /a c
--debug update /a d
--debug mkdir /dd
--debug updatedir /dd
--debug setdir /dd2
--debug ls /dd
--debug rm /a
--debug rm --with-value x /m
--debug rmdir /dd
--debug rm -r /dd2
--debug get /x
--debug watch --after-index {1} -r /
--debug cluster-health
--debug member list
--debug user list
--debug user get nobody
--debug role list
--debug role add r7
--debug role grant --path /a --read r7
--debug role revoke --path /a --readwrite r7
--debug role remove r7
--debug auth enable
user
user bogus
user add
user add a:b c
user add a:
user list x
user list
user get
user get a b
user get nobody
user remove
user remove nobody
user grant
user grant alice
user grant --roles r1 nobody
user revoke alice
user revoke --roles r1 nobody
user add x:y:z
user add alice:pw
user add alice:pw
user add root:pw
user add bob < secret\n
user get alice
user passwd
user passwd alice < pw\n
user list
role
role add
role add r1 r2
role add r1
role add r1
role add root
role get
role get r1
role get nope
role get root
role list
role list x
role remove
role remove nope
role remove root
role grant
role grant r1
role grant --path /x r1
role grant --rw r1
role grant --path /w --read --write r1
role grant --path /v --read --readwrite r1
role grant --path noslash --read r1
role grant --path /x --rw nope
role grant --path /x --rw r1
role grant --path /x --rw r1
role grant --path /y/* --read r1
role grant --path /z/* --write r1
role get r1
role revoke r1
role revoke --path /x r1
role revoke --path x --rw r1
role revoke --path /nope --read r1
role revoke --path /x --read r1
role get r1
user grant --roles r1 alice
user grant --roles r1 alice
user grant --roles root alice
user get alice
user revoke --roles root alice
user revoke --roles r9 alice
user remove x
auth
auth bogus
auth enable x
auth enable --foo
auth disable
auth enable
auth enable
-u root:pw auth enable
-u root:bad auth disable
-u alice:pw user list
-u alice:pw role list
-u alice:pw member remove 123
user list
role list
user get alice
role get r1
user add carl:pw
auth disable
-u root:pw user list
-u root:pw role list
-u root:pw member list
member list
set /free 1
get /free
-u alice:pw set /z/2 2
-u alice:pw get /z/2
-u alice:pw set /free 2
-u alice:bad set /z/2 2
-u nobody:pw get /free
-u root get /free < pw\n
-u root get /free < bad\n
-o json -u alice:pw get /free
-u root:pw user remove root
-u root:pw role remove r1
-u root:pw auth disable
-u root:pw auth disable
user remove alice
user remove bob
user remove root
role remove guest
user list
role list
bogus
help bogus
--bogus
--timeout x get /x
--endpoints http://127.0.0.1:1 get /a
--endpoint http://127.0.0.1:1 get /x
--peers http://127.0.0.1:1 get /x
-C http://127.0.0.1:1 get /x
--endpoints 127.0.0.1:1 get /a
--endpoints bad: get /a
--endpoints ftp://x get /a
--endpoints http://127.0.0.1:1 --no-sync get /a
--endpoints http://127.0.0.1:1 --no-sync user list
--endpoints http://127.0.0.1:1 member list
--endpoints http://127.0.0.1:1 user list
--endpoints http://127.0.0.1:1 auth enable
--endpoints http://127.0.0.1:1 watch /a
--endpoints http://127.0.0.1:1 cluster-health
--total-timeout 0s get /a
--ca-file nofile get /a
--cert-file nofile get /a
--key-file nofile get /a
--cert-file nofile --key-file no get /a
`

// toolBinary is kvctl, built once for each test that needs it.
func toolBinary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kvctl")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./cmd/kvctl")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build kvctl: %v\n%s", err, out)
	}
	return path
}

// words splits a command line; quotes hold a word together.
func words(line string) []string {
	var all []string
	for _, m := range regexp.MustCompile(`'([^']*)'|(\S+)`).FindAllStringSubmatch(line, -1) {
		all = append(all, m[1]+m[2])
	}
	return all
}

// typed prepares a line of the table for one server.
func (s *server) typed(ctx context.Context, binary, line string) *exec.Cmd {
	line, input, _ := strings.Cut(s.absolute(line), " < ")
	cmd := exec.CommandContext(ctx, binary, words(line)...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "ETCDCTL_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "ETCDCTL_API=2", "ETCDCTL_ENDPOINTS="+s.url)
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(input, `\n`, "\n"))
	return cmd
}

// types runs a line and gives the exit code and all that it says, without what
// may differ.
func (s *server) types(binary, line string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), waitMax)
	defer cancel()
	cmd := s.typed(ctx, binary, line)
	var out, failed bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &failed
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return s.outcome(fmt.Sprintf("exit %d\n%s--\n%s", cmd.ProcessState.ExitCode(), helpText.ReplaceAllString(out.String(), "$1"), failed.String()))
}

var (
	// Help is in words of our own.
	helpText = regexp.MustCompile(`(?s)^(Incorrect Usage[^\n]*\n).*|^NAME:.*|^[A-Z][^\n]*\.\n\nUsage:.*`)
	// What stty says to etcdctl where there is no terminal.
	sttyText   = regexp.MustCompile(`(?m)^stty: .*\n`)
	toolIndex  = regexp.MustCompile(`(?m)\[(\d+)\]$|Index: (\d+)$|waitIndex=(\d+)`)
	ttlLine    = regexp.MustCompile(`(?m)^TTL: [1-9]\d*$`)
	memberID   = regexp.MustCompile(`\b[0-9a-f]{12,16}\b`)
	memberName = regexp.MustCompile(`name=\S+`)
)

func (s *server) outcome(text string) string {
	text = replaceGroups(indexField, text, s.relative)
	text = replaceGroups(toolIndex, text, s.relative)
	text = replaceGroups(orderedName, text, s.relative)
	text = replaceGroups(comparison, text, s.relative)
	text = expiration.ReplaceAllString(text, `"expiration":"…"`)
	text = ttlField.ReplaceAllString(text, `"ttl":"…"`)
	text = ttlLine.ReplaceAllString(text, "TTL: …")
	text = strings.ReplaceAll(text, s.url, "url")
	text = sttyText.ReplaceAllString(text, "")
	if strings.Contains(text, "ealth") || strings.Contains(text, "isLeader") {
		text = memberID.ReplaceAllString(urls.ReplaceAllString(text, "url"), "id")
		text = memberName.ReplaceAllString(text, "name")
	}
	if s.usersChanged {
		text = toolIndex.ReplaceAllString(text, "index") // etcd counts changes of users too
	}
	return text
}

// If this fails, a script that was written for etcdctl with ETCDCTL_API=2 does
// something else, or stops, when kvctl takes its place, or when Kvorum takes
// the place of etcd under Debian's etcdctl.
func TestKvctlAsEtcdctl(t *testing.T) {
	etcdctl, p := pairWithEtcdctl(t)
	kvctl := toolBinary(t)
	var old *server // Kvorum under etcdctl
	if etcdctl != "" {
		old = newServer(t, "kvorum", start(t, process.Options{Binary: kvorumBinary(t), Size: 1}).Members[0].ClientURL)
		old.begin()
	}
	usersChanged := false
	for line := range strings.Lines(kvctlTable) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		usersChanged = usersChanged || strings.Contains(line, "role add") || strings.Contains(line, "user add")
		do := func(s *server, binary string) string {
			s.usersChanged = usersChanged
			return s.types(binary, line)
		}
		p.sameAs(line, func(s *server) string {
			if s == p.etcd {
				return do(s, etcdctl)
			}
			return do(s, kvctl)
		})
		if old == nil {
			continue
		}
		if got, want := do(old, etcdctl), p.last; got != want {
			t.Errorf("%s\netcdctl at kvorum: %s\netcdctl at etcd:   %s", line, got, want)
		}
	}
}

// pairWithEtcdctl is newPair without etcd unless etcdctl is there too.
func pairWithEtcdctl(t *testing.T) (string, *pair) {
	t.Helper()
	p := newPair(t)
	path, err := exec.LookPath("etcdctl")
	if err != nil {
		if p.etcd = nil; len(p.record.answers) == 0 {
			t.Skip("etcdctl is not installed: apt-get install etcd-client")
		}
		return "", p
	}
	return path, p
}

// watchLines are commands that go on until they are stopped, with how many
// lines they print of the changes that follows() makes.
const watchLines = `
12 watch --forever --recursive --after-index {0} /w
4 watch -f --after-index {0} /w/x
4 -o json watch -f --after-index {0} /w/x
6 exec-watch --after-index {0} -r /w -- sh -c 'echo $ETCD_WATCH_ACTION $ETCD_WATCH_KEY $ETCD_WATCH_VALUE'
`

// If this fails, a script that follows changes with watch or exec-watch misses
// some or reads them wrongly.
func TestKvctlFollows(t *testing.T) {
	etcdctl, p := pairWithEtcdctl(t)
	kvctl := toolBinary(t)
	for line := range strings.Lines("set /w/x 1\nset /w/x 2\nmkdir /w/d\nset /w/x 3\nrm /w/x\nset /w/y 'a b'\nmk /w/z end\n") {
		p.sameAs(line, func(s *server) string { return s.types(kvctl, strings.TrimSpace(line)) })
	}
	for line := range strings.Lines(strings.TrimSpace(watchLines)) {
		n, line, _ := strings.Cut(strings.TrimSpace(line), " ")
		p.sameAs(line, func(s *server) string {
			binary := kvctl
			if s == p.etcd {
				binary = etcdctl
			}
			return s.follows(binary, line, int(parseInt(t, n)))
		})
	}
}

// follows runs a line until it has printed so many lines, and stops it.
// exec-watch runs its commands side by side, so their lines come in any order.
func (s *server) follows(binary, line string, lines int) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), waitMax)
	defer cancel()
	cmd := s.typed(ctx, binary, line)
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	var said []string
	for in := bufio.NewScanner(out); len(said) < lines && in.Scan(); {
		said = append(said, s.outcome(in.Text()))
	}
	cancel()
	_ = cmd.Wait() // it was stopped
	if len(said) < lines {
		s.t.Errorf("%s: %d of %d lines in %v: %q", line, len(said), lines, waitMax, said)
	}
	if strings.HasPrefix(line, "exec-watch") {
		slices.Sort(said)
	}
	return strings.Join(said, "\n")
}
