package v2http

import (
	"io"
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
	verb                    string // the method of HTTP
	path                    string
	recursive, quorum, wait bool
	stream, dir, noValue    bool
	waitIndex               uint64
	change                  pb.V2Request // of PUT, POST and DELETE
	hasPrevExist, prevExist bool
	hasTTL                  bool
	ttlSeconds              uint64
}

// field is one name and its value in a form.
type field struct{ name, value string }

// form reads fields, the first of repeated ones, and keeps the first problem.
type form struct {
	fields []field
	wrong  *problem
}

func (f *form) find(name string) (value string, given bool) {
	for i := range f.fields {
		if f.fields[i].name == name {
			return f.fields[i].value, true
		}
	}
	return "", false
}

// get is the value of a field, empty if it is not given.
func (f *form) get(name string) string {
	value, _ := f.find(name)
	return value
}

func (f *form) fail(code int, cause string) {
	if f.wrong == nil {
		f.wrong = &problem{code: code, cause: cause}
	}
}

// flag reads a bool into to.
func (f *form) flag(name string, to *bool) {
	text, given := f.find(name)
	if !given {
		return
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		f.fail(codeField, "invalid value for "+strconv.Quote(name))
	}
	*to = v
}

func (f *form) index(name string, to *uint64) {
	text, given := f.find(name)
	if !given {
		return
	}
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		f.fail(codeIndex, "invalid value for "+strconv.Quote(name))
	}
	*to = v
}

// parse reads a request that came by net/http. A form that goes with a PUT or
// POST is in the body, in the query or in both; the body counts first.
func parse(r *http.Request) (*request, *problem) {
	q := &request{verb: r.Method, path: pathOf(r.URL.Path)}
	if r.URL.RawQuery == "" && r.Method != http.MethodPut && r.Method != http.MethodPost {
		return q, nil
	}
	values, err := readForm(r)
	if err != nil {
		return nil, &problem{code: codeForm, cause: err.Error()}
	}
	f := &form{fields: make([]field, 0, len(values))}
	for name, all := range values {
		f.fields = append(f.fields, field{name, all[0]})
	}
	q.read(f)
	return q, f.wrong
}

// read reads the fields of a request. Of several problems clients of etcd are
// told the one that comes first here.
func (q *request) read(f *form) {
	f.index("prevIndex", &q.change.PrevIndex)
	f.index("waitIndex", &q.waitIndex)
	f.flag("recursive", &q.recursive)
	var sorted bool // lists are in order anyway
	f.flag("sorted", &sorted)
	f.flag("wait", &q.wait)
	f.flag("dir", &q.dir)
	f.flag("quorum", &q.quorum)
	f.flag("stream", &q.stream)
	if q.wait && q.verb != http.MethodGet {
		f.fail(codeField, `"wait" can only be used with GET requests`)
	}
	q.readPrevValue(f)
	f.flag("noValueOnSuccess", &q.noValue)
	q.readTTL(f)
	q.readPrevExist(f)
	q.readRefresh(f)
	q.change.Value = []byte(f.get("value"))
}

// reads tells whether the request changes nothing.
func (q *request) reads() bool { return q.verb == http.MethodGet || q.verb == http.MethodHead }

// waits tells whether the request is for a change to come. A quorum read never
// waits for one.
func (q *request) waits() bool { return q.reads() && q.wait && !q.quorum }

// readForm reads body and query. What nearly every write sends, a short body
// alone, it reads at half the cost of http.Request.ParseForm.
func readForm(r *http.Request) (url.Values, error) {
	alone := r.URL.RawQuery == "" && r.ContentLength > 0 && r.ContentLength <= bodyBytesMax
	if !alone || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		err := r.ParseForm()
		return r.Form, err
	}
	body := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, body); err != nil {
		return nil, err
	}
	return url.ParseQuery(string(body))
}

// pathOf is the node's path: with a slash first and none at the end.
func pathOf(urlPath string) string {
	path := strings.TrimRight(urlPath[len(keysPath):], "/")
	if path == "" {
		return "/"
	}
	return path
}

func (q *request) readPrevValue(f *form) {
	value, given := f.find("prevValue")
	q.change.PrevValue = value
	if given && value == "" {
		f.fail(codePrevValue, `"prevValue" cannot be empty`)
	}
}

func (q *request) readTTL(f *form) {
	text := f.get("ttl")
	if text == "" {
		return
	}
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		f.fail(codeTTL, `invalid value for "ttl"`)
	}
	q.hasTTL, q.ttlSeconds = true, v
}

func (q *request) readPrevExist(f *form) {
	text, given := f.find("prevExist")
	if !given {
		return
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		f.fail(codeField, "invalid value for prevExist")
	}
	q.hasPrevExist, q.prevExist = true, v
}

func (q *request) readRefresh(f *form) {
	text, given := f.find("refresh")
	if !given {
		return
	}
	v, err := strconv.ParseBool(text)
	switch {
	case err != nil:
		f.fail(codeField, "invalid value for refresh")
	case !v:
		return
	case f.get("value") != "":
		f.fail(codeRefreshValue, "A value was provided on a refresh")
	case !q.hasTTL:
		f.fail(codeRefreshTTL, "No TTL value set")
	}
	q.change.Refresh = true
}

// command completes the change that a write asks for. now is when the time of
// a TTL begins.
func (q *request) command(now time.Time, nextLease func() int64) *pb.V2Request {
	c := &q.change
	c.Path, c.Dir, c.Recursive = q.path, q.dir, q.recursive
	c.Method = q.method()
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

func (q *request) method() pb.V2Request_Method {
	compare := q.change.PrevValue != "" || q.change.PrevIndex != 0
	switch {
	case q.verb == http.MethodPost:
		return pb.V2Request_CREATE_IN_ORDER
	case q.verb == http.MethodDelete && compare:
		return pb.V2Request_COMPARE_AND_DELETE
	case q.verb == http.MethodDelete:
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
