package cluster

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/process"
)

// crashPoints are all names that the code gives to crash.Here and crash.Set,
// each with a place.
func crashPoints(t *testing.T) map[string]string {
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
			if name, ok := pointOf(n); ok {
				found[name] = files.Position(n.Pos()).String()
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 50 {
		t.Fatalf("only %d crash points found: %v", len(found), found)
	}
	return found
}

// pointOf gives the name in a call such as crash.Here("name").
func pointOf(n ast.Node) (string, bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) != 1 {
		return "", false
	}
	fun, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || fun.Sel.Name != "Here" && fun.Sel.Name != "Set" {
		return "", false
	}
	pkg, isName := fun.X.(*ast.Ident)
	lit, isLiteral := call.Args[0].(*ast.BasicLit)
	if !isName || pkg.Name != "crash" || !isLiteral {
		return "", false
	}
	name, err := strconv.Unquote(lit.Value)
	return name, err == nil
}

// armedBinary is a server with crash points.
func armedBinary(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("KVORUM_FAILPOINTS_BIN"); path != "" {
		return path
	}
	binaries.mu.Lock()
	defer binaries.mu.Unlock()
	if binaries.armed == "" {
		path, err := build("kvorum-failpoints", "-tags", "failpoints")
		if err != nil {
			t.Fatal(err)
		}
		binaries.armed = path
	}
	return binaries.armed
}

// baseVariables is how many variables a member has that is not armed at its
// start: its endpoint comes first.
const baseVariables = 2

// withEndpoint gives a member an endpoint of its own.
func withEndpoint(m *process.Member) error {
	ports, err := process.FreePorts(1)
	if err != nil {
		return err
	}
	m.Env = []string{
		fmt.Sprintf("%s127.0.0.1:%d", endpointVariable, ports[0]),
		"GOFAIL_FAILPOINTS=server/fast-lease-checkpoints=return",
	}
	return nil
}

const endpointVariable = "GOFAIL_HTTP="

// startArmed starts three members with crash points and endpoints.
func startArmed(t *testing.T, args ...string) *env {
	t.Helper()
	return start(t, process.Options{
		Size: 3, Binary: armedBinary(t), Args: args,
		Prepare: func(m *process.Member, _ string) error { return withEndpoint(m) },
	})
}

// ask sends a request to the endpoint of a member.
func (e *env) ask(m *process.Member, method, path, body string) (status int, answer string) {
	e.t.Helper()
	url := "http://" + strings.TrimPrefix(m.Env[0], endpointVariable) + "/" + path
	ctx, cancel := e.brief(waitMax)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	r, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err.Error()
	}
	return r.StatusCode, string(text)
}

// arm sets a term of a running member. A death between the change and the answer
// is seen by whoever waits for it.
func (e *env) arm(m *process.Member, point, term string) {
	e.t.Helper()
	if status, text := e.ask(m, http.MethodPut, point, term); status != http.StatusNoContent && status != 0 {
		e.t.Fatalf("PUT /%s with %s: %d %s", point, term, status, text)
	}
}

func (e *env) disarm(m *process.Member, point string) {
	e.t.Helper()
	if status, text := e.ask(m, http.MethodDelete, point, ""); status != http.StatusNoContent {
		e.t.Fatalf("DELETE /%s: %d %s", point, status, text)
	}
}

// passed is how often an armed point was passed.
func (e *env) passed(m *process.Member, point string) int {
	e.t.Helper()
	status, text := e.ask(m, http.MethodGet, point+"/count", "")
	n, err := strconv.Atoi(text)
	if status != http.StatusOK || err != nil {
		e.t.Fatalf("GET /%s/count: %d %s", point, status, text)
	}
	return n
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// stopWhen cancels when done is closed; the returned function ends the interest
// and cancels too.
func stopWhen(cancel context.CancelFunc, done <-chan struct{}) (stop func()) {
	over := make(chan struct{})
	go func() {
		select {
		case <-done:
			cancel()
		case <-over:
		}
	}()
	return func() {
		close(over)
		cancel()
	}
}

// If this fails, a chaos tool made for etcd cannot drive Kvorum, or believes
// that a fault happened that did not.
func TestCrashPointEndpoint(t *testing.T) {
	t.Parallel()
	e := startArmed(t)
	m := e.leader()
	_, list := e.ask(m, http.MethodGet, "", "")
	var listed []string
	for line := range strings.Lines(list) {
		name, _, _ := strings.Cut(line, "=")
		listed = append(listed, name)
	}
	for name, place := range crashPoints(t) {
		if !slices.Contains(listed, name) {
			t.Errorf("%s: GET / does not list %s", place, name)
		}
	}
	for _, c := range []struct {
		method, path, body string
		status             int
		text               string
	}{
		{http.MethodPut, "noSuchPoint", "panic", http.StatusBadRequest, "does not exist"},
		{http.MethodPut, "walBeforeSync", "explode", http.StatusBadRequest, "could not parse"},
		{http.MethodDelete, "noSuchPoint", "", http.StatusBadRequest, "does not exist"},
		{http.MethodPut, "walBeforeSync", "3*sleep(1)->off", http.StatusNoContent, ""},
		{http.MethodGet, "walBeforeSync", "", http.StatusOK, "3*sleep(1)->off"},
		{http.MethodPut, "walAfterSync", "0.0%panic", http.StatusNoContent, ""},
		{http.MethodPut, "beforeCommit", "return(7)", http.StatusNoContent, ""}, // means nothing there, as in etcd
	} {
		if status, text := e.ask(m, c.method, c.path, c.body); status != c.status || !strings.Contains(text, c.text) {
			t.Errorf("%s /%s %q: %d %q, not %d %q", c.method, c.path, c.body, status, text, c.status, c.text)
		}
	}
	for range 5 {
		e.mustPut("a", "b")
	}
	if n := e.passed(m, "walBeforeSync"); n < 4 {
		t.Errorf("walBeforeSync was counted %d times in 5 writes", n)
	}
	e.disarm(m, "walBeforeSync")
	if _, text := e.ask(m, http.MethodGet, "walBeforeSync/count", ""); !strings.Contains(text, "disabled") {
		t.Errorf("a cleared point says %q", text)
	}
}

// If this fails, the fault that cuts a leader off without a dead process or link
// does nothing, or does not end.
func TestDropHeartbeat(t *testing.T) {
	t.Parallel()
	e := startArmed(t)
	old := e.leader()
	term := e.mustStatus(old).RaftTerm
	e.arm(old, "raftDropHeartbeat", "return")
	until(t, "the others take the silent leader for dead", waitMax, func() error {
		for _, m := range e.Members {
			if s, err := e.status(m); err == nil && s.RaftTerm > term {
				return nil
			}
		}
		return fmt.Errorf("all are in term %d", term)
	})
	e.disarm(old, "raftDropHeartbeat")
	e.serves(e.client)
	e.checkEqual()
}

// If this fails, a test with a misspelt point passes without its fault.
func TestBadCrashPointVariable(t *testing.T) {
	t.Parallel()
	for variable, want := range map[string]string{
		"noSuchPoint=panic":             `no point is named "noSuchPoint"`,
		"walBeforeSync=explode":         `walBeforeSync: cannot read the term "explode"`,
		"walBeforeSync=3*":              `walBeforeSync: cannot read the term "3*"`,
		"beforeCommit=off->":            `beforeCommit: cannot read the term "off->"`,
		"walBeforeSync=off;b=sleep(10)": `no point is named "b"`,
		"walBeforeSync":                 `bad failpoint "walBeforeSync"`,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), waitMax)
		cmd := exec.CommandContext(ctx, armedBinary(t), "--version")
		cmd.Env = append(os.Environ(), "GOFAIL_FAILPOINTS="+variable)
		out, err := cmd.CombinedOutput()
		cancel()
		if err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), want) {
			t.Errorf("GOFAIL_FAILPOINTS=%s: %v, %q; want exit code 1 and %q", variable, err, out, want)
		}
	}
}

// If this fails, the server that is shipped carries the machinery for crashing
// it, or pays for it.
func TestNoCrashPointsInNormalBuild(t *testing.T) {
	t.Parallel()
	program, err := os.ReadFile(binaries.plain)
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(binaries.plain)
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range info.Deps {
		if dep.Path == "go.etcd.io/gofail" {
			t.Errorf("the library %s is linked", dep.Path)
		}
	}
	for name, place := range crashPoints(t) {
		if bytes.Contains(program, []byte(name)) {
			t.Errorf("%s: the program contains the name %s: the call was not taken out", place, name)
		}
	}
}
