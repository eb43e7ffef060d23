package v2

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/process"
)

// waitMax bounds every wait of these tests.
const waitMax = 60 * time.Second

// kvorumBinary builds the server once for each test that needs one.
func kvorumBinary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("KVORUM_BIN"); path != "" {
		return path
	}
	path := filepath.Join(t.TempDir(), "kvorum")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./cmd/kvorum")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build kvorum (or set KVORUM_BIN): %v\n%s", err, out)
	}
	return path
}

// findEtcd is where Debian's etcd 3.4 is.
func findEtcd(t testing.TB) (string, error) {
	path, err := exec.LookPath("etcd")
	if err != nil {
		return "", fmt.Errorf("etcd is not installed: apt-get install etcd-server: %w", err)
	}
	out, err := exec.CommandContext(t.Context(), path, "--version").Output()
	if err != nil || !strings.HasPrefix(string(out), "etcd Version: 3.4.") {
		return "", fmt.Errorf("%s is not etcd 3.4", path)
	}
	return path, nil
}

// debianEtcd is etcd 3.4, or the test is skipped.
func debianEtcd(t testing.TB) string {
	t.Helper()
	path, err := findEtcd(t)
	if err != nil {
		t.Skip(err)
	}
	return path
}

func start(t testing.TB, o process.Options) *process.Cluster {
	t.Helper()
	o.Dir = t.TempDir()
	c, err := process.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Stop()
		if t.Failed() {
			for _, m := range c.Members {
				t.Logf("last log lines of %s:\n%s", m.Name, m.LogTail(3))
			}
		}
	})
	return c
}

// ask is one request. In path and body {n} is the index n after that of the
// first request, and {n:020} the same with 20 digits.
type ask struct {
	method, path, body string
	contentType        string // of the body; "" is a form
	user, password     string
}

func (a ask) String() string {
	s := a.method + " " + a.path
	if a.body != "" {
		s += " " + a.body
	}
	if a.contentType != "" {
		s += " (" + a.contentType + ")"
	}
	if a.user != "" {
		s += " as " + a.user
	}
	return s
}

// reply is an answer as it came.
type reply struct {
	status int
	header http.Header
	body   string
}

// server is one of the two that are compared.
type server struct {
	t      *testing.T
	name   string
	url    string
	client *http.Client
	base   int64 // the index of the first request
	// usersChanged: indexes cannot be compared any more.
	usersChanged bool
}

func newServer(t *testing.T, name, url string) *server {
	return &server{t: t, name: name, url: url, client: &http.Client{
		Timeout:       waitMax,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{},
	}}
}

// begin makes the next index the first one.
func (s *server) begin() {
	s.t.Helper()
	r := s.do(ask{method: "PUT", path: "/v2/keys/begin", body: "value=1"})
	var answer struct{ Node struct{ ModifiedIndex int64 } }
	if err := json.Unmarshal([]byte(r.body), &answer); err != nil || answer.Node.ModifiedIndex == 0 {
		s.t.Fatalf("%s: first write: %v: %d %s", s.name, err, r.status, r.body)
	}
	s.base = answer.Node.ModifiedIndex
}

var (
	placeholder = regexp.MustCompile(`\{(-?\d+)(:020)?\}`)
	indexField  = regexp.MustCompile(`"(modifiedIndex|createdIndex|index)":(\d+)`)
	orderedName = regexp.MustCompile(`/(0\d{19})`)
	comparison  = regexp.MustCompile(`\[(\d+) != (\d+)\]`)
	cleared     = regexp.MustCompile(`cleared \[\d+/(\d+)\]`)
	expiration  = regexp.MustCompile(`"expiration":"[^"]*Z"`)
	ttlField    = regexp.MustCompile(`"ttl":\d+`)
)

// absolute puts this server's indexes into a request.
func (s *server) absolute(text string) string {
	return placeholder.ReplaceAllStringFunc(text, func(m string) string {
		parts := placeholder.FindStringSubmatch(m)
		n, _ := strconv.ParseInt(parts[1], 10, 64)
		if parts[2] != "" {
			return fmt.Sprintf("%020d", s.base+n)
		}
		return strconv.FormatInt(s.base+n, 10)
	})
}

// relative is an index as both servers must have it.
func (s *server) relative(text string) string {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < s.base-1 {
		return text
	}
	return fmt.Sprintf("+%d", n-s.base)
}

// comparable is a body with relative indexes, without times, children in order.
func (s *server) comparable(body string) string {
	body = replaceGroups(indexField, body, s.relative)
	body = replaceGroups(orderedName, body, s.relative)
	body = replaceGroups(comparison, body, s.relative)
	body = replaceGroups(cleared, body, s.relative)
	body = expiration.ReplaceAllString(body, `"expiration":"…"`)
	body = ttlField.ReplaceAllString(body, `"ttl":"…"`)
	if strings.Count(body, `"nodes":`) == 0 {
		return body
	}
	var v any
	if json.Unmarshal([]byte(quoteRelative(body)), &v) != nil {
		return body
	}
	sortNodes(v)
	out, _ := json.Marshal(v)
	return string(out)
}

func quoteRelative(body string) string {
	return regexp.MustCompile(`:(\+\d+)`).ReplaceAllString(body, `:"$1"`)
}

// sortNodes puts the children of all directories in order of their keys.
func sortNodes(v any) {
	m, ok := v.(map[string]any)
	if !ok {
		return
	}
	for _, inner := range m {
		sortNodes(inner)
	}
	nodes, ok := m["nodes"].([]any)
	if !ok {
		return
	}
	for _, n := range nodes {
		sortNodes(n)
	}
	slices.SortFunc(nodes, func(a, b any) int { return strings.Compare(keyOf(a), keyOf(b)) })
}

func keyOf(v any) string {
	m, _ := v.(map[string]any)
	key, _ := m["key"].(string)
	return key
}

// replaceGroups replaces the groups of all matches that are numbers.
func replaceGroups(re *regexp.Regexp, text string, replace func(string) string) string {
	var out strings.Builder
	last := 0
	for _, at := range re.FindAllStringSubmatchIndex(text, -1) {
		for g := 2; g < len(at); g += 2 {
			if at[g] < 0 {
				continue // this group has no part in the match
			}
			if _, err := strconv.ParseUint(text[at[g]:at[g+1]], 10, 64); err != nil {
				continue
			}
			out.WriteString(text[last:at[g]])
			out.WriteString(replace(text[at[g]:at[g+1]]))
			last = at[g+1]
		}
	}
	return out.String() + text[last:]
}

// open sends a request and leaves the body to be read.
func (s *server) open(ctx context.Context, a ask) *http.Response {
	s.t.Helper()
	r, err := http.NewRequestWithContext(ctx, a.method, s.url+s.absolute(a.path), strings.NewReader(s.absolute(a.body)))
	if err != nil {
		s.t.Fatalf("%v: %v", a, err)
	}
	switch {
	case a.contentType != "":
		r.Header.Set("Content-Type", a.contentType)
	case a.body != "":
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if a.user != "" {
		r.SetBasicAuth(a.user, a.password)
	}
	answer, err := s.client.Do(r)
	if err != nil {
		s.t.Fatalf("%s: %v: %v", s.name, a, err)
	}
	return answer
}

func (s *server) do(a ask) reply {
	s.t.Helper()
	answer := s.open(s.t.Context(), a)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatalf("%s: %v: %v", s.name, a, err)
	}
	return reply{answer.StatusCode, answer.Header, string(body)}
}

// outline is what must be equal of an answer.
func (s *server) outline(r reply) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%d\n", r.status)
	for _, name := range []string{"Allow", "Content-Type", "X-Etcd-Index"} {
		if v := r.header.Get(name); v != "" {
			fmt.Fprintf(&out, "%s: %s\n", name, s.relative(v))
		}
	}
	for _, name := range []string{"X-Etcd-Cluster-Id", "X-Raft-Index", "X-Raft-Term"} {
		fmt.Fprintf(&out, "%s: %t\n", name, r.header.Get(name) != "")
	}
	if v := r.header.Get("Location"); v != "" {
		fmt.Fprintf(&out, "Location: %s\n", v)
	}
	return out.String() + s.comparable(r.body)
}

// pair is Kvorum and etcd, given the same requests. Without etcd its answers
// are those that were recorded.
type pair struct {
	t            *testing.T
	kvorum, etcd *server // etcd nil: not installed
	record       *recording
	differences  int
	last         string // what etcd has said last
}

// differencesMax is how many differences a test shows.
const differencesMax = 5

// newPair starts one member of each; with recording, Kvorum's alone if there is
// no etcd.
func newPair(t *testing.T) *pair { return newPairOf(t, 1) }

func newPairOf(t *testing.T, size int) *pair {
	t.Helper()
	p := &pair{t: t, record: loadRecording(t)}
	old, err := findEtcd(t)
	if err != nil && len(p.record.answers) == 0 {
		t.Skip(err)
	}
	p.kvorum = newServer(t, "kvorum", start(t, process.Options{Binary: kvorumBinary(t), Size: size}).Members[0].ClientURL)
	p.kvorum.begin()
	if err == nil {
		p.etcd = newServer(t, "etcd", start(t, process.Options{Binary: old, Size: size, Args: []string{"--enable-v2"}}).Members[0].ClientURL)
		p.etcd.begin()
	}
	return p
}

// same sends one request to both and fails unless the answers are the same.
func (p *pair) same(a ask) {
	p.t.Helper()
	p.sameAs(a.String(), func(s *server) string { return s.outline(s.do(a)) })
}

// sameAs does the same with both and fails unless it comes to the same. name
// stands for it in the recording.
func (p *pair) sameAs(name string, do func(*server) string) {
	p.t.Helper()
	var live string
	if p.etcd != nil {
		live = do(p.etcd)
	}
	want, err := p.record.want(name, live, p.etcd != nil)
	if err != nil {
		p.t.Error(err)
	}
	p.last = want
	if got := do(p.kvorum); got != want {
		p.t.Errorf("%s\nkvorum: %s\netcd:   %s", name, got, want)
		if p.differences++; p.differences == differencesMax {
			p.t.Fatal("too many differences: what follows builds on what went before")
		}
	}
}

func parseInt(t *testing.T, text string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// signed is a difference as paths have it; none for 0.
func signed(d int64) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf("%+d", d)
}

func braced(n int64) string { return fmt.Sprintf("{%d}", n) }
