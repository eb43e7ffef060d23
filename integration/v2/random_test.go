package v2

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// draw makes requests on few keys, so that they meet.
type draw struct {
	*rand.Rand
	made int64 // about how many indexes there have been
}

func (d *draw) one(options ...string) string { return options[d.IntN(len(options))] }

func (d *draw) path() string {
	var path strings.Builder
	for range 1 + d.IntN(3) {
		path.WriteString("/" + d.one("a", "b", "c", "_h", "a-b", "a.b"))
	}
	if d.IntN(30) == 0 {
		return "/"
	}
	return path.String()
}

func (d *draw) index() string { return fmt.Sprintf("{%d}", max(0, d.made-d.Int64N(6))) }

// ask draws a request; some make no sense.
func (d *draw) ask() ask {
	a := ask{method: d.one("GET", "GET", "PUT", "PUT", "PUT", "PUT", "POST", "DELETE", "DELETE"), path: "/v2/keys" + d.path()}
	var query, body []string
	add := func(to *[]string, one int, field string) {
		if d.IntN(one) == 0 {
			*to = append(*to, field)
		}
	}
	switch a.method {
	case "GET":
		add(&query, 2, "recursive=true")
		add(&query, 2, "sorted=true")
		add(&query, 4, "quorum=true")
	case "DELETE":
		add(&query, 3, "recursive=true")
		add(&query, 3, "dir=true")
		add(&query, 4, "prevValue="+d.one("x", "y", "z"))
		add(&query, 5, "prevIndex="+d.index())
	default:
		if d.IntN(5) > 0 {
			body = append(body, "value="+d.one("x", "y", "z"))
		}
		add(&query, 6, "dir=true")
		add(&query, 4, "prevExist="+d.one("true", "false"))
		add(&query, 5, "prevValue="+d.one("x", "y", "z"))
		add(&query, 5, "prevIndex="+d.index())
		add(&query, 6, "ttl="+d.one("1000", "2000", ""))
		add(&query, 9, "refresh=true")
		add(&query, 12, "noValueOnSuccess=true")
	}
	if query != nil {
		a.path += "?" + strings.Join(query, "&")
	}
	a.body = strings.Join(body, "&")
	return a
}

// seedOf is the seed of a run: KVORUM_SEED replays one.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("KVORUM_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("KVORUM_SEED: %v", err)
		}
	}
	t.Logf("replay with KVORUM_SEED=%d go test -run '^%s$' ./integration/v2", seed, t.Name())
	return seed
}

// If this fails, some combination of parameters that nobody thought of does
// something else than in etcd 3.4, or the two no longer count alike.
func TestRandomKeysAsEtcd(t *testing.T) {
	requests := 300
	if os.Getenv("KVORUM_LONG") != "" {
		requests = 20_000
	}
	debianEtcd(t)
	p := newPair(t)
	p.record = &recording{}                               // of no use for other requests
	d := &draw{Rand: rand.New(rand.NewPCG(seedOf(t), 0))} //nolint:gosec // a test
	for range requests {
		p.same(d.ask())
		if d.IntN(10) == 0 {
			d.made = p.index()
		}
	}
	p.same(ask{method: "GET", path: "/v2/keys/?recursive=true"})
}

// index is the newest index of Kvorum, as a number of this test.
func (p *pair) index() int64 {
	r := p.kvorum.do(ask{method: "GET", path: "/v2/keys/begin"})
	n, err := strconv.ParseInt(r.header.Get("X-Etcd-Index"), 10, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return n - p.kvorum.base
}
