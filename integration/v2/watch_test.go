package v2

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// events reads the events of one watch request.
type events struct {
	s      *server
	a      ask
	answer *http.Response
	lines  *bufio.Reader
	cancel context.CancelFunc
}

// watch sends a watch request; the headers have come when it returns.
func (s *server) watch(a ask) *events {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), waitMax)
	answer := s.open(ctx, a)
	return &events{s: s, a: a, answer: answer, lines: bufio.NewReader(answer.Body), cancel: cancel}
}

// next is the next event, as both servers must have it.
func (e *events) next() string {
	e.s.t.Helper()
	line, err := e.lines.ReadString('\n')
	if err != nil {
		e.s.t.Fatalf("%s: %v: %v after %q", e.s.name, e.a, err, line)
	}
	return e.s.comparable(line)
}

// rest reads to the end of the answer.
func (e *events) rest() string {
	e.s.t.Helper()
	defer e.close()
	body, err := io.ReadAll(e.lines)
	if err != nil {
		e.s.t.Fatalf("%s: %v: %v", e.s.name, e.a, err)
	}
	return e.s.outline(reply{e.answer.StatusCode, e.answer.Header, string(body)})
}

func (e *events) close() {
	e.cancel()
	e.answer.Body.Close()
}

// waitCase is one long poll: what was done before, the request, what is done
// while it waits. The last thing done must end it.
type waitCase struct {
	name, before, path, during string
}

func waitCases() []waitCase {
	return []waitCase{
		{"one key", "", "/w1?wait=true", "PUT /other value=0\nPUT /w1 value=1"},
		{"a key below a file", "PUT /w2 value=1", "/w2/x?wait=true", "DELETE /w2\nPUT /w2/x value=2"},
		{"recursive", "", "/w3?wait=true&recursive=true", "PUT /w33 value=0\nPUT /w3-x value=0\nPUT /w3/a/b value=1"},
		{"not recursive", "PUT /w4/a value=1", "/w4?wait=true", "PUT /w4/a value=2\nDELETE /w4/a\nDELETE /w4?dir=true"},
		{"recursive on a file", "PUT /w5 value=1", "/w5?wait=true&recursive=true", "PUT /w5 value=2"},
		{"of the root", "", "/?wait=true&recursive=true", "PUT /w6 value=1"},
		{"without a path", "", "?wait=true&recursive=true", "PUT /w6 value=1"},
		{"removal above", "PUT /w7/a/b value=1", "/w7/a/b?wait=true", "DELETE /w7?recursive=true"},
		{"removal above, recursive", "PUT /w8/a/b value=1", "/w8/a?wait=true&recursive=true", "DELETE /w8?recursive=true"},
		{"removal below", "PUT /w9/a/b value=1", "/w9?wait=true&recursive=true", "DELETE /w9/a?recursive=true"},
		{"hidden", "", "/w10?wait=true&recursive=true", "PUT /w10/_a value=1\nPUT /w10/_b/c value=1\nPUT /w10/d value=1"},
		{"hidden by name", "", "/w11/_a?wait=true&recursive=true", "PUT /w11/_a/b value=1"},
		{"create", "", "/w12?wait=true&recursive=true", "POST /w12 value=1"},
		{"update", "PUT /w13 value=1", "/w13?wait=true", "PUT /w13?prevExist=true value=2"},
		{"swap", "PUT /w14 value=1", "/w14?wait=true", "PUT /w14?prevValue=1 value=2"},
		{"compare and delete", "PUT /w15 value=1", "/w15?wait=true", "DELETE /w15?prevValue=1"},
		{"refresh is silent", "PUT /w16 value=1", "/w16?wait=true", "PUT /w16?refresh=true&ttl=100\nPUT /w16 value=2"},
		{"TTL of a directory", "PUT /w17?dir=true", "/w17?wait=true", "PUT /w17?dir=true&prevExist=true&ttl=100"},
		{"the file turns into a directory", "PUT /w18 value=1", "/w18?wait=true", "PUT /w18?dir=true"},
		{"expiry", "PUT /w19?ttl=1 value=1", "/w19?wait=true", ""},
		{"expiry above", "PUT /w20?dir=true&ttl=1\nPUT /w20/a/b value=1", "/w20/a/b?wait=true", ""},
		{"expiry of what is shorter", "PUT /w21?dir=true&ttl=100\nPUT /w21/a/b?ttl=1 value=1", "/w21?wait=true&recursive=true", ""},
		{"stream off", "", "/w22?wait=true&stream=false", "PUT /w22 value=1"},
		{"future", "", "/w23?wait=true&waitIndex={next+2}", "PUT /w23 value=1\nPUT /w23 value=2\nPUT /w23 value=3"},
		{"past", "PUT /w24 value=1\nPUT /w24 value=2\nPUT /w24 value=3", "/w24?wait=true&waitIndex={next-2}", ""},
		{"past, recursive", "PUT /w25/a value=1\nPUT /w25x value=2\nPUT /w25/b value=3", "/w25?wait=true&recursive=true&waitIndex={next-2}", ""},
		{"past and hidden", "PUT /w26/_a value=1", "/w26?wait=true&recursive=true&waitIndex={next-1}", ""},
		{"past refresh", "PUT /w27 value=1\nPUT /w27?refresh=true&ttl=100\nPUT /w27 value=2", "/w27?wait=true&waitIndex={next-2}", ""},
		{"past removal", "PUT /w28/a value=1\nDELETE /w28?recursive=true", "/w28?wait=true&waitIndex={next-1}", ""},
		{"past removal above", "PUT /w29/a value=1\nDELETE /w29?recursive=true", "/w29/a?wait=true&waitIndex={next-1}", ""},
		{"past removal above, recursive", "PUT /w30/a value=1\nDELETE /w30?recursive=true", "/w30/a?wait=true&recursive=true&waitIndex={next-1}", ""},
		{"past delete", "PUT /w31/a value=1\nDELETE /w31/a", "/w31?wait=true&recursive=true&waitIndex={next-1}", ""},
		{"waitIndex 0", "PUT /w32 value=1", "/w32?wait=true&waitIndex=0", "PUT /w32 value=2"},
		{"quorum", "", "/w33?wait=true&quorum=true", "PUT /w33 value=1"},
	}
}

// run plays a case on one server and gives what came.
func (w waitCase) run(s *server) string {
	s.t.Helper()
	for _, a := range parseTable(w.before) {
		s.do(a)
	}
	path := s.fillNext(w.path)
	e := s.watch(ask{method: "GET", path: "/v2/keys" + path})
	for _, a := range parseTable(w.during) {
		s.do(a)
	}
	return e.rest()
}

// fillNext puts indexes counted from the next one into a path.
func (s *server) fillNext(path string) string {
	if !strings.Contains(path, "{next") {
		return path
	}
	r := s.do(ask{method: "GET", path: "/v2/keys/begin"})
	next := parseInt(s.t, r.header.Get("X-Etcd-Index")) + 1 - s.base
	for _, d := range []int64{-3, -2, -1, 0, 1, 2, 3} {
		path = strings.ReplaceAll(path, "{next"+signed(d)+"}", braced(next+d))
	}
	return path
}

// If this fails, a client that waits for a change as with etcd 3.4 is told of
// another one, of none, or in other words.
func TestWaitAsEtcd(t *testing.T) {
	p := newPair(t)
	for _, w := range waitCases() {
		t.Run(w.name, func(t *testing.T) {
			p.t, p.kvorum.t = t, t
			if p.etcd != nil {
				p.etcd.t = t
			}
			p.sameAs(w.name, w.run)
		})
	}
}

// If this fails, a client that streams changes misses some, or is told of them
// otherwise than by etcd 3.4.
func TestStreamAsEtcd(t *testing.T) {
	debianEtcd(t)
	p := newPair(t)
	const path = "/v2/keys/s?wait=true&stream=true&recursive=true"
	ours, theirs := p.kvorum.watch(ask{method: "GET", path: path}), p.etcd.watch(ask{method: "GET", path: path})
	defer ours.close()
	defer theirs.close()
	table := parseTable("PUT /s/a value=1\nPUT /s/a value=2\nPUT /sx value=1\nPOST /s/q value=1\nPUT /s/a?prevValue=2 value=3\nPUT /s/_h value=1\n" +
		"PUT /s/a?refresh=true&ttl=100\nPUT /s/a?prevExist=true value=4\nDELETE /s/a\nDELETE /s/q?recursive=true\nPUT /s/t?ttl=1 value=1")
	for _, a := range table {
		p.same(a)
	}
	const told = 8 + 1 // without sx, _h and the refresh; with the expiry
	for range told {
		if got, want := ours.next(), theirs.next(); got != want {
			t.Errorf("kvorum: %s\netcd:   %s", got, want)
		}
	}
}

// If this fails, nodes outlive their time, go too early, or count otherwise
// than in etcd 3.4.
func TestExpiryAsEtcd(t *testing.T) {
	p := newPair(t)
	for _, a := range parseTable("PUT /e/a?ttl=1 value=1\nGET /e/a\nPUT /e/d?dir=true&ttl=2\nPUT /e/d/x/y value=1\nPUT /e/d/z?ttl=100 value=1\nPUT /e/k?ttl=1 value=1\nPUT /e/k?prevExist=true value=2\nPUT /e/b?ttl=0 value=1") {
		p.same(a)
	}
	p.sameAs("wait for the end of /e/d", func(s *server) string {
		s.until("/v2/keys/e/d", func(r reply) bool { return r.status == http.StatusNotFound })
		return "ended"
	})
	p.same(ask{method: "GET", path: "/v2/keys/e?recursive=true"})
	p.same(ask{method: "PUT", path: "/v2/keys/e/after", body: "value=1"})
}

// until asks until the answer is as wanted.
func (s *server) until(path string, done func(reply) bool) {
	s.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(waitMax); time.Now().Before(deadline); <-tick.C {
		if done(s.do(ask{method: "GET", path: path})) {
			return
		}
	}
	s.t.Fatalf("%s: %s has not become what was waited for", s.name, path)
}
