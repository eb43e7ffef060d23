package tidy

import (
	"go/ast"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A password in a log line is in every copy of the log. What a whole request says
// of itself is left to contentOf in server, which hides such fields.
func TestSecretsAreNotLogged(t *testing.T) {
	secret := regexp.MustCompile(`^(Get)?(Hashed)?(Simple)?(Password|Token)$`)
	const registry = "server/registry.go" // its token is the name of a list of members
	calls := 0
	for _, f := range load(t).files {
		if f.test || !strings.HasPrefix(f.dir, "server") && !strings.HasPrefix(f.dir, "raft") && !strings.HasPrefix(f.dir, "proxy") {
			continue
		}
		ast.Inspect(f.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !isLogCall(call) {
				return true
			}
			calls++
			for _, argument := range call.Args {
				ast.Inspect(argument, func(n ast.Node) bool {
					if what, ok := n.(*ast.SelectorExpr); ok && secret.MatchString(what.Sel.Name) && f.path != registry {
						t.Errorf("%s logs %s: passwords and tokens are not for logs", f.path, what.Sel.Name)
					}
					return true
				})
			}
			return true
		})
	}
	if calls < 50 {
		t.Errorf("only %d log calls were found: the search is broken", calls)
	}
}

// isLogCall recognises log.Warn(…), s.log.Info(…) and so on.
func isLogCall(call *ast.CallExpr) bool {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains([]string{"Debug", "Info", "Warn", "Error", "Log", "LogAttrs"}, method.Sel.Name) {
		return false
	}
	switch on := method.X.(type) {
	case *ast.Ident:
		return strings.Contains(strings.ToLower(on.Name), "log")
	case *ast.SelectorExpr:
		return strings.Contains(strings.ToLower(on.Sel.Name), "log")
	}
	return false
}
