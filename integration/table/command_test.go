package table

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/ctl"
	"github.com/kvorum/kvorum/internal/process"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server"
)

func formats() []string { return []string{"simple", "json", "fields", "protobuf", "table"} }

const exitFormat = 4 // the exit code for a format that does not exist

func commandRows(w *world) (rows []row) {
	tool := newTool(w)
	trees := map[string][]ctl.Description{"etcdctl": ctl.Describe("etcdctl"), "etcdutl": ctl.Describe("etcdutl")}
	for _, f := range facts(w.T, "etcd/commands.txt", 5) {
		group := strings.TrimSpace(f[0] + " " + f[1])
		at := slices.IndexFunc(trees[f[0]], func(d ctl.Description) bool { return d.Path == f[1] && d.Runs })
		if at < 0 {
			rows = append(rows, row{group, "command", absent, "there is no such command"})
			continue
		}
		rows = append(rows, row{group, "command", met, ""})
		for _, want := range splitDefaults(f[2]) {
			rows = append(rows, flagOf(trees[f[0]][at], group, want))
		}
		rows = append(rows, tool.formatRows(group, f[0], f[3], f[4])...)
	}
	return rows
}

// splitDefaults splits name=value; a value goes on to the next name.
func splitDefaults(s string) (all [][2]string) {
	for _, word := range strings.Fields(s) {
		name, value, _ := strings.Cut(word, "=")
		all = append(all, [2]string{name, value})
	}
	return all
}

func flagOf(d ctl.Description, group string, want [2]string) row {
	r := row{group: group, name: "--" + want[0], state: met}
	switch f, ok := d.Flags[want[0]]; {
	case !ok:
		r.state, r.why = absent, "not defined"
	case !sameDefault(f.Default, want[1]):
		r.state, r.why = differs, "the default is "+strconv.Quote(f.Default)+", not "+strconv.Quote(want[1])
	}
	return r
}

// tool runs commands against the member, and on files.
type tool struct {
	*world
	dir  string
	runs int
}

func newTool(w *world) *tool {
	w.Helper()
	t := &tool{world: w, dir: w.TempDir()}
	for _, name := range []string{"etcdctl", "etcdutl"} {
		if err := os.Symlink(filepath.Join(programs, "kvctl"), filepath.Join(t.dir, name)); err != nil {
			w.Fatal(err)
		}
	}
	w.vars["$SNAP"], w.vars["$DATA"] = filepath.Join(t.dir, "snap.db"), filepath.Join(t.dir, "stopped.etcd")
	t.must("etcdctl", "put k v")
	t.must("etcdctl", "snapshot save $SNAP")
	t.stopped()
	return t
}

// stopped makes the data folder of a member that ran and was stopped.
func (t *tool) stopped() {
	t.Helper()
	c, err := process.Start(process.Options{Binary: t.member.Binary, Size: 1, Dir: t.dir, MemberDir: func(string) string { return t.vars["$DATA"] }})
	if err != nil {
		t.Fatal(err)
	}
	c.Members[0].Terminate()
}

// outcome is what a command did.
type outcome struct {
	code           int
	stdout, stderr string
}

func (t *tool) must(name, line string) {
	t.Helper()
	if o := t.run(name, line, "simple"); o.code != 0 {
		t.Fatalf("%s %s: %+v", name, line, o)
	}
}

// run runs one line of commands.txt or failures.txt.
func (t *tool) run(name, line, format string) outcome {
	t.Helper()
	line, stdin, _ := strings.Cut(line, " <")
	args := shellWords(t.fill(line))
	hold := args[0] == "hold"
	if hold {
		args = args[1:]
	}
	if format != "simple" {
		args = append([]string{"-w", format}, args...)
	}
	env := os.Environ()
	if !slices.Contains(args, "--endpoints") {
		env = append(env, "ETCDCTL_ENDPOINTS="+t.member.Endpoint())
	}
	if hold {
		cmd := exec.Command(filepath.Join(t.dir, name), args...) //nolint:gosec // our own program
		cmd.Env = env
		return t.hold(cmd)
	}
	var out, talk bytes.Buffer
	code := ctl.Main(ctl.Config{
		Args: append([]string{name}, args...), Env: env, Version: "test", Stdout: &out, Stderr: &talk,
		Stdin: strings.NewReader(strings.ReplaceAll(strings.TrimPrefix(stdin, " "), `\n`, "\n")),
		Restore: func(ctx context.Context, o ctl.RestoreOptions) error {
			return server.Restore(ctx, server.RestoreOptions(o))
		},
	})
	return outcome{code, out.String(), talk.String()}
}

// hold waits until the command prints something, or ends, and interrupts it.
func (t *tool) hold(cmd *exec.Cmd) outcome {
	t.Helper()
	var talk bytes.Buffer
	cmd.Stderr = &talk
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	first, readErr := bufio.NewReader(out).ReadByte()
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait()
	if readErr != nil {
		return outcome{code: cmd.ProcessState.ExitCode(), stderr: talk.String()}
	}
	return outcome{stdout: string(first), stderr: talk.String()} // how it ends when interrupted is another matter
}

// formatRows tries each format.
func (t *tool) formatRows(group, name, works, lines string) (rows []row) {
	t.Helper()
	if works == "-" {
		return nil
	}
	for _, format := range formats() {
		r := row{group: group, name: "-w " + format, state: met}
		o := t.prepareAndRun(name, lines, format)
		can := works == "text" || slices.Contains(strings.Fields(works), format)
		switch {
		case can && o.code != 0:
			r.state, r.why = refused, fmt.Sprintf("exit code %d: %s", o.code, firstError(o.stderr))
		case !can && o.code != exitFormat:
			r.state, r.why = differs, fmt.Sprintf("etcd has no such output and ends with %d; this ends with %d", exitFormat, o.code)
		}
		if !can {
			r.name += " refused"
		}
		rows = append(rows, r)
	}
	return rows
}

// prepareAndRun runs the last line in the format, after the others.
func (t *tool) prepareAndRun(name, lines, format string) outcome {
	t.Helper()
	t.runs++
	t.variables(lines)
	all := strings.Split(strings.ReplaceAll(lines, "%", strconv.Itoa(t.runs)), " ; ")
	for _, line := range all[:len(all)-1] {
		t.must(name, line)
	}
	if strings.Contains(lines, "$REV") {
		t.call(func(ctx context.Context, c *client.Client) error {
			r, err := c.Get(ctx, "k")
			t.vars["$REV"] = strconv.FormatInt(r.GetHeader().GetRevision(), 10)
			return err
		})
	}
	return t.run(name, all[len(all)-1], format)
}

// call uses a client of its own for a moment.
func (t *tool) call(f func(context.Context, *client.Client) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), askMax)
	defer cancel()
	c, err := client.New(client.Config{Endpoints: []string{t.member.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := f(ctx, c); err != nil {
		t.Fatal(err)
	}
}

// variables makes what a line mentions.
func (t *tool) variables(lines string) {
	t.Helper()
	t.vars["$NEW"] = filepath.Join(t.dir, fmt.Sprintf("new%d", t.runs))
	if strings.Contains(lines, "$LEASE") {
		t.call(func(ctx context.Context, c *client.Client) error {
			r, err := c.Grant(ctx, 600)
			t.vars["$LEASE"] = strconv.FormatInt(r.GetID(), 16)
			return err
		})
	}
	if strings.Contains(lines, "$MEMBER") || strings.Contains(lines, "member ") {
		t.call(t.members)
	}
}

// members names the member, and a new learner, the only one.
func (t *tool) members(ctx context.Context, c *client.Client) error {
	r, err := c.Members(ctx, false)
	if err != nil {
		return err
	}
	for _, m := range r.Members {
		if !m.IsLearner {
			t.vars["$MEMBER"] = strconv.FormatUint(m.ID, 16)
		} else if _, err := c.Cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: m.ID}); err != nil {
			return err
		}
	}
	added, err := c.Cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{fmt.Sprintf("http://127.0.0.1:%d", 30000+t.runs)}, IsLearner: true})
	t.vars["$LEARNER"] = strconv.FormatUint(added.GetMember().GetID(), 16)
	return err
}

// shellWords splits on blanks outside of single quotes.
func shellWords(line string) (words []string) {
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			words = append(words, part)
			continue
		}
		words = append(words, strings.Fields(part)...)
	}
	return words
}

// firstError is the line that says what is wrong, without what changes from run
// to run.
func firstError(stderr string) string {
	for line := range strings.Lines(stderr) {
		if text, found := strings.CutPrefix(line, "Error: "); found {
			return strings.TrimSpace(text)
		}
	}
	return "no error is printed"
}

func failureRows(w *world) (rows []row) {
	t := newTool(w)
	for _, f := range facts(w.T, "etcd/failures.txt", 4) {
		t.runs++
		t.variables(f[1])
		o := t.run(f[0], f[1], "simple")
		r := row{group: f[0], name: f[1] + " → " + f[2], state: met}
		switch {
		case strconv.Itoa(o.code) != f[2]:
			r.state, r.why = differs, fmt.Sprintf("exit code %d: %s", o.code, firstError(o.stderr))
		case !strings.Contains(o.stderr, f[3]):
			r.state, r.why = differs, fmt.Sprintf("it says %q, not %q", firstError(o.stderr), f[3])
		}
		rows = append(rows, r)
	}
	return rows
}
