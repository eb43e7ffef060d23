package crash_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// If this fails, a point cannot be armed: GET / does not list it, and to come
// there in a build with points ends the process.
func TestNames(t *testing.T) {
	passed := passedPoints(t)
	listed := listedPoints(t)
	for _, name := range slices.Sorted(maps.Keys(passed)) {
		if !slices.Contains(listed, name) {
			t.Errorf("%s: the point %s is not in names.go", passed[name], name)
		}
	}
	for _, name := range listed {
		if passed[name] == "" {
			t.Errorf("names.go has %s, and no code passes it", name)
		}
	}
	if len(passed) < 50 {
		t.Errorf("only %d points were found in the source", len(passed))
	}
}

// passedPoints finds the calls of Here and Set: a place by name.
func passedPoints(t *testing.T) map[string]string {
	t.Helper()
	files, found := token.NewFileSet(), map[string]string{}
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			fun, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || fun.Sel.Name != "Here" && fun.Sel.Name != "Set" {
				return true
			}
			if pkg, ok := fun.X.(*ast.Ident); !ok || pkg.Name != "crash" {
				return true
			}
			if name, ok := literal(call.Args[0]); ok {
				found[name] = files.Position(call.Pos()).String()
			} else {
				t.Errorf("%s: the name of a point is a literal, so that tests can find it", files.Position(call.Pos()))
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// listedPoints reads names.go, which this build leaves out.
func listedPoints(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "names.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	ast.Inspect(file, func(n ast.Node) bool {
		if list, ok := n.(*ast.CompositeLit); ok {
			for _, e := range list.Elts {
				if name, ok := literal(e); ok {
					all = append(all, name)
				}
			}
		}
		return true
	})
	return all
}

func literal(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}
