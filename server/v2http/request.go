package v2http

import (
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// request is a request on /v2/keys, parsed.
type request struct {
	path                    string
	recursive, quorum, wait bool
	stream, dir, noValue    bool
	waitIndex               uint64
	change                  pb.V2Request // of PUT, POST and DELETE
	hasPrevExist, prevExist bool
	hasTTL                  bool
	ttlSeconds              uint64
}

// form reads fields, the first of repeated ones.
type form url.Values

func (f form) has(name string) bool { return len(f[name]) > 0 }

func (f form) get(name string) string {
	if values := f[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// flag reads a bool into to; quoted says how a bad one is named.
func (f form) flag(name string, to *bool, quoted bool) *problem {
	if !f.has(name) {
		return nil
	}
	v, err := strconv.ParseBool(f.get(name))
	if err != nil {
		if quoted {
			name = strconv.Quote(name)
		}
		return &problem{code: codeField, cause: "invalid value for " + name}
	}
	*to = v
	return nil
}

func (f form) index(name string, to *uint64) *problem {
	if !f.has(name) {
		return nil
	}
	v, err := strconv.ParseUint(f.get(name), 10, 64)
	if err != nil {
		return &problem{code: codeIndex, cause: "invalid value for " + strconv.Quote(name)}
	}
	*to = v
	return nil
}

// parse reads a request. A form that goes with a write is in the body, in the
// query or in both; the body counts first.
func parse(r *http.Request) (*request, *problem) {
	if err := r.ParseForm(); err != nil {
		return nil, &problem{code: codeForm, cause: err.Error()}
	}
	f := form(r.Form)
	q := &request{path: pathOf(r)}
	for _, read := range []func() *problem{
		func() *problem { return f.index("prevIndex", &q.change.PrevIndex) },
		func() *problem { return f.index("waitIndex", &q.waitIndex) },
		func() *problem { return f.flag("recursive", &q.recursive, true) },
		func() *problem { return f.flag("sorted", new(bool), true) }, // lists are in order anyway
		func() *problem { return f.flag("wait", &q.wait, true) },
		func() *problem { return f.flag("dir", &q.dir, true) },
		func() *problem { return f.flag("quorum", &q.quorum, true) },
		func() *problem { return f.flag("stream", &q.stream, true) },
		func() *problem { return q.checkWait(r.Method) },
		func() *problem { return q.readPrevValue(f) },
		func() *problem { return f.flag("noValueOnSuccess", &q.noValue, true) },
		func() *problem { return q.readTTL(f) },
		func() *problem { return q.readPrevExist(f) },
		func() *problem { return q.readRefresh(f) },
	} {
		if p := read(); p != nil {
			return nil, p
		}
	}
	q.change.Value = []byte(f.get("value"))
	return q, nil
}

// pathOf is the node's path: with a slash first and none at the end.
func pathOf(r *http.Request) string {
	path := strings.TrimRight(r.URL.Path[len(keysPath):], "/")
	if path == "" {
		return "/"
	}
	return path
}

func (q *request) checkWait(method string) *problem {
	if q.wait && method != http.MethodGet {
		return &problem{code: codeField, cause: `"wait" can only be used with GET requests`}
	}
	return nil
}

func (q *request) readPrevValue(f form) *problem {
	q.change.PrevValue = f.get("prevValue")
	if f.has("prevValue") && q.change.PrevValue == "" {
		return &problem{code: codePrevValue, cause: `"prevValue" cannot be empty`}
	}
	return nil
}

func (q *request) readTTL(f form) *problem {
	text := f.get("ttl")
	if text == "" {
		return nil
	}
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return &problem{code: codeTTL, cause: `invalid value for "ttl"`}
	}
	q.hasTTL, q.ttlSeconds = true, v
	return nil
}

func (q *request) readPrevExist(f form) *problem {
	if !f.has("prevExist") {
		return nil
	}
	q.hasPrevExist = true
	v, err := strconv.ParseBool(f.get("prevExist"))
	if err != nil {
		return &problem{code: codeField, cause: "invalid value for prevExist"}
	}
	q.prevExist = v
	return nil
}

func (q *request) readRefresh(f form) *problem {
	if !f.has("refresh") {
		return nil
	}
	v, err := strconv.ParseBool(f.get("refresh"))
	switch {
	case err != nil:
		return &problem{code: codeField, cause: "invalid value for refresh"}
	case !v:
		return nil
	case f.get("value") != "":
		return &problem{code: codeRefreshValue, cause: "A value was provided on a refresh"}
	case !q.hasTTL:
		return &problem{code: codeRefreshTTL, cause: "No TTL value set"}
	}
	q.change.Refresh = true
	return nil
}

// command completes the change that a write asks for. now is when the time of
// a TTL begins.
func (q *request) command(method string, now time.Time, nextLease func() int64) *pb.V2Request {
	c := &q.change
	c.Path, c.Dir, c.Recursive = q.path, q.dir, q.recursive
	c.Method = q.method(method)
	if c.Method != pb.V2Request_COMPARE_AND_SWAP && c.Method != pb.V2Request_COMPARE_AND_DELETE {
		c.PrevValue, c.PrevIndex = "", 0
	}
	// A node that would end after the last moment that has a number never ends.
	const most = math.MaxInt64 / int64(time.Second)
	if q.hasTTL && q.ttlSeconds <= uint64(most-now.Unix()-1) {
		c.TtlSeconds = int64(q.ttlSeconds)
		c.Expiration = now.UnixNano() + c.TtlSeconds*int64(time.Second)
		c.Lease = nextLease()
	}
	return c
}

func (q *request) method(method string) pb.V2Request_Method {
	compare := q.change.PrevValue != "" || q.change.PrevIndex != 0
	switch {
	case method == http.MethodPost:
		return pb.V2Request_CREATE_IN_ORDER
	case method == http.MethodDelete && compare:
		return pb.V2Request_COMPARE_AND_DELETE
	case method == http.MethodDelete:
		return pb.V2Request_DELETE
	case q.hasPrevExist && !q.prevExist:
		return pb.V2Request_CREATE
	case compare:
		return pb.V2Request_COMPARE_AND_SWAP
	case q.hasPrevExist:
		return pb.V2Request_UPDATE
	}
	return pb.V2Request_SET
}
