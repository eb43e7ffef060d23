package secure

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/process"
)

const waitMax = 60 * time.Second

// programs is the folder with the two binaries, built once for all tests.
var programs string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "kvorum")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		out, err := exec.Command("go", "build", "-o", dir, "../../cmd/kvorum", "../../cmd/kvctl").CombinedOutput()
		if err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		programs = dir
		return m.Run()
	}())
}

// site is a folder in which the commands of a page run. It has bin/kvctl, and
// bin/kvorum, which notes its arguments and its process id and then becomes the
// real one.
type site struct {
	t       *testing.T
	dir     string
	clients []int // ports, by member
	peers   []int
	env     []string
}

const noteArguments = `#!/bin/sh
printf '%%s\n' "$@" > %[1]s/"$2".args
echo $$ > %[1]s/"$2".pid
exec %[2]s "$@" 2> %[1]s/"$2".log
`

func newSite(t *testing.T) *site {
	t.Helper()
	ports, err := process.FreePorts(6)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, dir: t.TempDir(), clients: ports[:3], peers: ports[3:]}
	s.env = append(os.Environ(), "PATH="+filepath.Join(s.dir, "bin")+":"+os.Getenv("PATH"))
	for _, err := range []error{
		os.Mkdir(filepath.Join(s.dir, "bin"), 0o700),
		os.Mkdir(filepath.Join(s.dir, "run"), 0o700),
		os.Symlink(filepath.Join(programs, "kvctl"), filepath.Join(s.dir, "bin", "kvctl")),
		os.WriteFile(filepath.Join(s.dir, "bin", "kvorum"),
			fmt.Appendf(nil, noteArguments, filepath.Join(s.dir, "run"), filepath.Join(programs, "kvorum")), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(s.stop)
	return s
}

// stop ends the members by their process ids.
func (s *site) stop() {
	for _, name := range []string{"m1", "m2", "m3"} {
		if s.t.Failed() {
			log, _ := os.ReadFile(filepath.Join(s.dir, "run", name+".log"))
			s.t.Logf("%s: ... %s", name, log[max(0, len(log)-2000):])
		}
		if pid := s.pid(name); pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// pid is 0 when the member was never started.
func (s *site) pid(name string) (pid int) {
	text, _ := os.ReadFile(filepath.Join(s.dir, "run", name+".pid"))
	_, _ = fmt.Sscan(string(text), &pid)
	return pid
}

// commands takes the indented blocks out of a section of a page.
func commands(t *testing.T, page, heading string) []string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n"+heading+"\n")
	if !found {
		t.Fatalf("%s has no section %q", page, heading)
	}
	if end := regexp.MustCompile(`\n#+ `).FindStringIndex(section); end != nil {
		section = section[:end[0]]
	}
	var blocks []string
	block := ""
	for line := range strings.Lines(section + "\nend\n") {
		code, indented := strings.CutPrefix(line, "    ")
		switch {
		case indented:
			block += code
		case block != "" && strings.TrimSpace(line) != "":
			blocks, block = append(blocks, block), ""
		}
	}
	if len(blocks) == 0 {
		t.Fatalf("section %q of %s has no commands", heading, page)
	}
	return blocks
}

// ports replaces the ports of a page by those of the site.
func (s *site) ports(script string) string {
	for i := range s.clients {
		script = strings.ReplaceAll(script, fmt.Sprintf(":%d2379", i+1), fmt.Sprintf(":%d", s.clients[i]))
		script = strings.ReplaceAll(script, fmt.Sprintf(":%d2380", i+1), fmt.Sprintf(":%d", s.peers[i]))
	}
	script = strings.ReplaceAll(script, ":${i}2379", ":${clients[i]}")
	script = strings.ReplaceAll(script, ":${i}2380", ":${peers[i]}")
	return fmt.Sprintf("clients=(0 %s) peers=(0 %s)\n", strings.Trim(fmt.Sprint(s.clients), "[]"), strings.Trim(fmt.Sprint(s.peers), "[]")) + script
}

// run runs commands with bash; the first that fails fails the test.
func (s *site) run(script string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitMax)
	defer cancel()
	out, err := os.Create(filepath.Join(s.t.TempDir(), "out")) // a file: members in the background keep it open
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", s.ports(script))
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.env, out, out
	err = cmd.Run()
	text, readErr := os.ReadFile(out.Name())
	if err != nil || readErr != nil {
		s.t.Fatalf("%s\n%v, %v\n%s", script, err, readErr, text)
	}
	return string(text)
}

// start makes the cluster of the README.
func start(t *testing.T) (*site, string) {
	t.Helper()
	s := newSite(t)
	return s, s.run(strings.Join(commands(t, "../../README.md", "## Three members, secure"), "\n"))
}

// endpoints are the client URLs.
func (s *site) endpoints() []string {
	var all []string
	for _, p := range s.clients {
		all = append(all, fmt.Sprintf("https://127.0.0.1:%d", p))
	}
	return all
}

func (s *site) file(name string) string { return filepath.Join(s.dir, name) }
