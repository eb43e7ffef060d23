package table

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/process"
)

const page = "../../docs/compat.md"

// sections are the page, in order. Each has a member of its own, so that what one
// asks does not change what the next one sees.
func sections() []section {
	return []section{
		{"RPCs", "Kvorum's descriptors are compared, and each method is asked something that must succeed, or fail with the right code.", rpcRows},
		{"Fields", "Number, type and name of each field and enum value of the messages, from Kvorum's descriptors.", fieldRows},
		{"Flags of the server", "The server parses each flag with another value than the default, and the defaults are compared.", flagRows},
		{"Commands", "From the command tree of `kvctl` under the names etcdctl and etcdutl; each format of `-w` is tried.", commandRows},
		{"Failures of commands", "Each is run; exit code and text are compared.", failureRows},
		{"The v2 API", "Each is asked of a member; [v2.md](v2.md) says what is different on purpose.", v2Rows},
		{"Metrics", "Type, labels and buckets: [compat-metrics.md](compat-metrics.md), from a scrape too.", metricRows},
	}
}

// section is a heading of the page. rows may fail the test, but not because
// something is not met.
type section struct {
	title, about string
	rows         func(*world) []row
}

// row is one thing that etcd has.
type row struct {
	group, name string
	state       state
	why         string // when it is not met
}

type state string

const (
	met     state = "met"
	warned  state = "met, with a warning"
	differs state = "differs"
	refused state = "refused"
	absent  state = "absent"
)

func states() []state { return []state{met, warned, differs, refused, absent} }

// world is a member that rows are found out with.
type world struct {
	*testing.T
	member *process.Member
	vars   map[string]string // $NAME in what is asked
}

// programs is the folder with kvorum and kvctl.
var programs string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "table")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		if out, err := exec.Command("go", "build", "-o", dir, "../../cmd/kvorum", "../../cmd/kvctl").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		programs = dir
		return m.Run()
	}())
}

func newWorld(t *testing.T) *world {
	t.Helper()
	c, err := process.Start(process.Options{Binary: filepath.Join(programs, "kvorum"), Size: 1, Dir: t.TempDir(), Args: []string{"--metrics", "extensive"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return &world{T: t, member: c.Members[0], vars: map[string]string{}}
}

// fill puts the variables into what is asked.
func (w *world) fill(s string) string {
	for name, value := range w.vars {
		s = strings.ReplaceAll(s, name, value)
	}
	return s
}

// facts reads a file of etcd/: lines of columns, without comments.
func facts(t *testing.T, file string, columns int) (all [][]string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		cells := strings.Split(line, "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if len(cells) != columns {
			t.Fatalf("%s: %q has %d columns, want %d", file, line, len(cells), columns)
		}
		all = append(all, cells)
	}
	if len(all) < 5 {
		t.Fatalf("%s has only %d rows", file, len(all))
	}
	return all
}

// If this fails, the page that users decide by says something about Kvorum that
// is not so.
func TestCompatPage(t *testing.T) {
	var found []filled
	for _, s := range sections() {
		t.Run(s.title, func(t *testing.T) {
			found = append(found, filled{s, s.rows(newWorld(t))})
		})
	}
	if t.Failed() {
		return
	}
	text := write(found)
	if os.Getenv("KVORUM_UPDATE") != "" {
		if err := os.WriteFile(page, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(old) != text {
		t.Errorf("docs/compat.md is not what Kvorum does now; run make compat and look at what changed:\n%s", firstDifference(string(old), text))
	}
}

func firstDifference(a, b string) string {
	was, is := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(was), len(is)) {
		if was[i] != is[i] {
			return "page " + was[i] + "\nnow  " + is[i]
		}
	}
	return fmt.Sprintf("%d lines, now %d", len(was), len(is))
}

type filled struct {
	section
	rows []row
}

func (f filled) count(s state) (n int) {
	for _, r := range f.rows {
		if r.state == s {
			n++
		}
	}
	return n
}

// write makes the page.
func write(all []filled) string {
	var b strings.Builder
	total, good := 0, 0
	for _, f := range all {
		total += len(f.rows)
		good += f.count(met)
	}
	fmt.Fprintf(&b, "# What of etcd 3.7 is there\n\nWritten by `make compat`; do not edit. How each row is found out: `integration/table`.\n\n")
	fmt.Fprintf(&b, "**%d of %d rows are met.** The other %d follow.\n\n| section |", good, total, total-good)
	for _, s := range states() {
		fmt.Fprintf(&b, " %s |", s)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(states())) + "\n")
	for _, f := range all {
		fmt.Fprintf(&b, "| [%s](#%s) |", f.title, strings.ReplaceAll(strings.ToLower(f.title), " ", "-"))
		for _, s := range states() {
			fmt.Fprintf(&b, " %d |", f.count(s))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n## Not met\n\n| what | state | why |\n|---|---|---|\n")
	for _, f := range all {
		f.writeNotMet(&b)
	}
	for _, f := range all {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| of | what | state |\n|---|---|---|\n", f.title, f.about)
		f.writeGroups(&b)
	}
	return b.String()
}

// writeNotMet puts rows that follow each other and are alike into one line.
func (f filled) writeNotMet(b *strings.Builder) {
	rows := slices.DeleteFunc(slices.Clone(f.rows), func(r row) bool { return r.state == met })
	for len(rows) > 0 {
		first, names := rows[0], []string(nil)
		for len(rows) > 0 && rows[0].group == first.group && rows[0].state == first.state && rows[0].why == first.why {
			names, rows = append(names, rows[0].name), rows[1:]
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", cell(strings.TrimSpace(first.group+" "+strings.Join(names, ", "))), first.state, cell(first.why))
	}
}

// writeGroups puts what is met into one line per group; the rest gets lines of
// its own.
func (f filled) writeGroups(b *strings.Builder) {
	var groups []string
	names := map[string][]string{}
	for _, r := range f.rows {
		if !slices.Contains(groups, r.group) {
			groups = append(groups, r.group)
		}
		if r.state == met {
			names[r.group] = append(names[r.group], r.name)
		}
	}
	for _, g := range groups {
		if len(names[g]) > 0 {
			fmt.Fprintf(b, "| %s | %s | met |\n", cell(g), cell(strings.Join(names[g], ", ")))
		}
		for _, r := range f.rows {
			if r.group == g && r.state != met {
				fmt.Fprintf(b, "| %s | %s | %s: %s |\n", cell(g), cell(r.name), r.state, cell(r.why))
			}
		}
	}
}

func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(s)
}
