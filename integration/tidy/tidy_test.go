package tidy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/kvorum/kvorum"

// source is one parsed Go file of the main module.
type source struct {
	path string // from the root of the repository, slashes
	dir  string // folder of path
	test bool
	file *ast.File
}

type tree struct {
	fset  *token.FileSet
	files []source
}

// load parses every Go file of the main module: not the modules of their own,
// and not generated code.
func load(t *testing.T) tree {
	t.Helper()
	tr := tree{fset: token.NewFileSet()}
	err := filepath.WalkDir(root(t), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := relative(t, path)
		if d.IsDir() {
			if rel == ".git" || rel == "tools" || rel == "bin" || rel != "." && hasModule(path) || d.Name() == "testdata" || rel == ".proto-check" {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, ".pb.go") {
			return nil
		}
		file, err := parser.ParseFile(tr.fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		tr.files = append(tr.files, source{path: rel, dir: filepath.ToSlash(filepath.Dir(rel)), test: strings.HasSuffix(rel, "_test.go"), file: file})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.files) < 5 {
		t.Fatalf("found only %d Go files: the walk is broken", len(tr.files))
	}
	return tr
}

func hasModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "..", "..")
}

func relative(t *testing.T, path string) string {
	t.Helper()
	rel, err := filepath.Rel(root(t), path)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.ToSlash(rel)
}

func (s source) imports() []string {
	var out []string
	for _, i := range s.file.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		out = append(out, p)
	}
	return out
}

// floors lists the packages from the lowest floor to the highest. A package
// belongs to the longest matching prefix. "…" matches nothing but itself.
var floors = [][]string{
	{"proto", "internal"},
	{"mvcc", "raft/wal", "raft/peer", "pki"},
	{"server/state", "server/secure", "raft", "client"},
	{"server/api", "server/gateway", "server/v2http", "server/console", "server/metrics", "server/logs", "server/audit", "server/trace", "server/offline"},
	{"ctl", "server", "proxy"},
	{"cmd", "integration"},
}

func floorOf(dir string) (floor int, room string) {
	floor = -1
	for i, rooms := range floors {
		for _, r := range rooms {
			if (dir == r || strings.HasPrefix(dir, r+"/")) && len(r) > len(room) {
				floor, room = i, r
			}
		}
	}
	return floor, room
}

// Without floors every package ends up knowing every other, and nothing can be
// read, tested or replaced alone.
func TestImportsGoOnlyDownward(t *testing.T) {
	for _, f := range load(t).files {
		from, room := floorOf(f.dir)
		if from < 0 {
			if f.dir != "." && !strings.HasPrefix(f.dir, "examples") {
				t.Errorf("%s: folder %s has no floor; give it one in integration/tidy", f.path, f.dir)
			}
			continue
		}
		for _, imp := range f.imports() {
			if !strings.HasPrefix(imp, module+"/") {
				continue
			}
			to, toRoom := floorOf(strings.TrimPrefix(imp, module+"/"))
			if to > from || (to == from && toRoom != room) {
				t.Errorf("%s imports %s: imports go only downward (see docs/map.md); move the shared thing to a lower floor", f.path, imp)
			}
		}
	}
}

// A library that leaks through the tree can never be replaced.
func TestLibrariesStayInTheirRoom(t *testing.T) {
	owners := map[string][]string{
		"go.etcd.io/raft/v3":      {"raft", "integration/sim"},
		"go.etcd.io/bbolt":        {"mvcc"},
		"github.com/spf13/cobra":  {"ctl", "cmd"},
		"go.etcd.io/gofail":       {"internal/crash"},
		"go.etcd.io/etcd":         {},
		"github.com/spf13/pflag":  {"ctl", "cmd"},
		"github.com/anishathalye": {"integration"},
	}
	for _, f := range load(t).files {
		for _, imp := range f.imports() {
			for lib, rooms := range owners {
				if imp != lib && !strings.HasPrefix(imp, lib+"/") {
					continue
				}
				if !slices.ContainsFunc(rooms, func(r string) bool { return f.dir == r || strings.HasPrefix(f.dir, r+"/") }) {
					// The peer transport's receiver hands raft messages to the server.
					t.Errorf("%s imports %s, which belongs to %v alone", f.path, imp, rooms)
				}
			}
		}
	}
}

// The promise of a package stands in its doc comment; a reader starts there.
func TestEveryPackageHasADoc(t *testing.T) {
	docs := map[string]bool{}
	for _, f := range load(t).files {
		if f.test {
			continue
		}
		docs[f.dir] = docs[f.dir] || (f.file.Doc != nil && len(f.file.Doc.Text()) > 40)
	}
	for dir, ok := range docs {
		if !ok && dir != "." {
			t.Errorf("package %s has no doc comment that says what it promises", dir)
		}
	}
}

// Equal commands must give equal bytes on every member, so what decides may
// not know the time, chance or another goroutine.
func TestDecidersAreDeterministic(t *testing.T) {
	deciders := func(f source) bool {
		return f.dir == "server/state" || f.dir == "server/state/v2keys" || f.path == "raft/core.go" || f.path == "raft/entrylog.go" ||
			slices.Contains([]string{"mvcc/index.go", "mvcc/btree.go", "mvcc/write.go", "mvcc/txn.go", "mvcc/range.go", "mvcc/revision.go", "mvcc/tail.go", "mvcc/event.go"}, f.path)
	}
	tr := load(t)
	seen := 0
	for _, f := range tr.files {
		if f.test || !deciders(f) {
			continue
		}
		seen++
		for _, imp := range f.imports() {
			if imp == "math/rand" || imp == "math/rand/v2" || imp == "crypto/rand" {
				t.Errorf("%s imports %s: apply must be deterministic", f.path, imp)
			}
		}
		ast.Inspect(f.file, func(n ast.Node) bool {
			switch x := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: go statement in code that decides; wait with goroutines in another file", tr.fset.Position(x.Pos()))
			case *ast.SelectorExpr:
				if id, ok := x.X.(*ast.Ident); ok && id.Name == "time" && slices.Contains([]string{"Now", "Since", "After", "Tick", "NewTimer", "NewTicker", "Sleep"}, x.Sel.Name) {
					t.Errorf("%s: time.%s in code that decides; take ticks or an argument", tr.fset.Position(x.Pos()), x.Sel.Name)
				}
			}
			return true
		})
	}
	if seen < 3 {
		t.Errorf("only %d deciding files found: the list in this test is out of date", seen)
	}
}

// Hidden work at start-up and hidden state make order of imports matter.
func TestNoInit(t *testing.T) {
	for _, f := range load(t).files {
		for _, d := range f.file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s has an init function; do it in a constructor", f.path)
			}
		}
	}
}

// A main function that does work cannot be tested.
func TestMainsAreShort(t *testing.T) {
	tr := load(t)
	for _, f := range tr.files {
		if !strings.HasPrefix(f.dir, "cmd/") || f.test {
			continue
		}
		lines := tr.fset.Position(f.file.End()).Line
		if lines > 45 {
			t.Errorf("%s has %d lines: a main only wires", f.path, lines)
		}
	}
}

// Waiting by sleeping is either too short on a slow machine or too long on all.
func TestTestsDoNotSleep(t *testing.T) {
	tr := load(t)
	for _, f := range tr.files {
		if !f.test || strings.HasPrefix(f.dir, "integration/tidy") {
			continue
		}
		synctest := slices.Contains(f.imports(), "testing/synctest")
		ast.Inspect(f.file, func(n ast.Node) bool {
			if x, ok := n.(*ast.SelectorExpr); ok && x.Sel.Name == "Sleep" && !synctest {
				if id, ok := x.X.(*ast.Ident); ok && id.Name == "time" {
					t.Errorf("%s: time.Sleep in a test; wait for the event itself", tr.fset.Position(x.Pos()))
				}
			}
			return true
		})
	}
}

// A page that names a function that is gone sends the newcomer astray. Pages
// mark code as `package.Name` or `Type.Method`.
func TestPagesNameWhatExists(t *testing.T) {
	tr := load(t)
	known := map[string]bool{}
	for _, f := range tr.files {
		pkg := f.file.Name.Name
		for _, d := range f.file.Decls {
			switch x := d.(type) {
			case *ast.FuncDecl:
				name := x.Name.Name
				if x.Recv != nil {
					name = receiver(x.Recv.List[0].Type) + "." + name
				}
				known[pkg+"."+name], known[name] = true, true
			case *ast.GenDecl:
				for _, s := range x.Specs {
					switch v := s.(type) {
					case *ast.TypeSpec:
						known[pkg+"."+v.Name.Name], known[v.Name.Name] = true, true
						fields(v, func(n string) { known[v.Name.Name+"."+n] = true; known[pkg+"."+v.Name.Name+"."+n] = true })
					case *ast.ValueSpec:
						for _, n := range v.Names {
							known[pkg+"."+n.Name] = true
						}
					}
				}
			}
		}
	}
	call := regexp.MustCompile("`((?:[a-zA-Z]\\w*\\.)+\\w+)\\(\\)`")
	for _, page := range []string{"docs/map.md", "docs/write.md", "docs/watch.md"} {
		text, err := os.ReadFile(filepath.Join(root(t), page))
		if err != nil {
			t.Error(err)
			continue
		}
		names := call.FindAllStringSubmatch(string(text), -1)
		if len(names) == 0 {
			t.Errorf("%s names no function as `package.Type.Name()`", page)
		}
		for _, m := range names {
			if !known[m[1]] {
				t.Errorf("%s names `%s()`, which does not exist", page, m[1])
			}
		}
	}
}

func receiver(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.StarExpr:
		return receiver(x.X)
	case *ast.IndexExpr:
		return receiver(x.X)
	case *ast.Ident:
		return x.Name
	}
	return ""
}

func fields(s *ast.TypeSpec, visit func(string)) {
	var list *ast.FieldList
	switch x := s.Type.(type) {
	case *ast.StructType:
		list = x.Fields
	case *ast.InterfaceType:
		list = x.Methods
	default:
		return
	}
	for _, f := range list.List {
		for _, n := range f.Names {
			visit(n.Name)
		}
	}
}
