package v2

import (
	"strings"
	"testing"
)

// keysTable is a story: each line builds on those before it. METHOD, path below
// /v2/keys, and the form if there is one.
const keysTable = `
PUT /foo value=bar
PUT /foo value=baz
GET /foo
HEAD /foo
GET /foo/
GET /foo?quorum=true
GET /nokey
HEAD /nokey
GET /no/such/key
PUT /a/b/c value=1
PUT /a/b/c/d value=1
PUT /a/b/c/d?prevExist=true value=1
PUT /a/b/c/d?prevExist=false value=1
PUT /a/b/c/d?prevValue=1 value=1
GET /a/b/c/d
GET /a/b/c/d/e
DELETE /a/b/c/d
POST /a/b/c value=1
GET /a
GET /a?recursive=true
GET /a?recursive=true&sorted=true
GET /
GET /?recursive=true
GET
PUT /a value=1
PUT /a?dir=true
PUT /a/b/c?dir=true
PUT /a/b/c?dir=true&prevExist=true&ttl=100
GET /a/b
PUT /a/b/c?dir=true&prevExist=true&ttl=
GET /a/b
PUT /a/b/c?prevExist=true value=x
PUT /a/b/c?prevExist=true value=
PUT /a/b/c?prevExist=true&refresh=true&ttl=100
GET /a/b
PUT /newdir?dir=true value=ignored
PUT /newdir2?dir=true&ttl=100
PUT /newdir?dir=true&prevExist=false
PUT /foo?dir=true&prevExist=false
PUT /foo?dir=true&prevExist=true value=stillfile
GET /foo
PUT /foo?dir=true
GET /foo
DELETE /foo
DELETE /foo?dir=true
PUT /foo?prevExist=true value=1
PUT /x/y/z?prevExist=true value=1
PUT /x/y/z?prevValue=1 value=1
PUT /x/y/z?prevIndex=1 value=1
PUT /foo?prevExist=false value=one
PUT /foo?prevExist=false value=one
PUT /foo?prevExist=false&prevValue=zzz value=one
PUT /foo?prevExist=true value=two
PUT /foo?prevExist=true
GET /foo
PUT /foo value=three
PUT /foo?prevValue=three value=four
PUT /foo?prevValue=three value=five
PUT /foo?prevIndex={9999} value=five
PUT /foo?prevValue=three&prevIndex={9999} value=five
PUT /foo?prevValue=four&prevIndex={9999} value=five
PUT /foo?prevValue=nope&prevExist=true value=five
PUT /foo?prevValue=four&prevExist=true value=five
PUT /foo?prevIndex=0 value=six
PUT /foo?prevIndex=0&prevValue=six value=seven
PUT /foo?prevValue= value=five
PUT /foo?prevIndex=x value=five
PUT /foo?prevIndex=-1 value=five
PUT /foo?prevIndex= value=eight
PUT /foo?prevValue=x&prevIndex=y value=five
PUT /a?prevValue=x value=five
PUT /a?prevIndex=1 value=five
DELETE /foo?prevValue=nope
DELETE /foo?prevValue=nope&prevIndex={9999}
DELETE /foo?prevIndex={9999}
DELETE /foo?prevValue=
DELETE /foo?prevIndex=y
DELETE /a?prevValue=x
DELETE /a?prevValue=x&recursive=true
DELETE /nokey?prevValue=x
DELETE /nokey
DELETE /no/such
DELETE /foo?prevValue=eight
PUT /foo value=a
DELETE /foo?recursive=true&prevValue=a
PUT /foo value=a
DELETE /foo?prevIndex=0
PUT /foo value=a
DELETE /foo?dir=true
PUT /foo value=a
DELETE /foo?dir=true&recursive=true
PUT /d/e/f value=1
DELETE /d
DELETE /d?dir=true
DELETE /d?dir=false
DELETE /d?recursive=true&dir=false
PUT /d/e/f value=1
DELETE /d?recursive=true&dir=true
PUT /d?dir=true
DELETE /d?dir=true
PUT /d?dir=true
DELETE /d?recursive=true
GET /d
PUT / value=1
PUT /?dir=true
PUT /?prevExist=true value=1
PUT /?prevExist=true&ttl=5
PUT /?prevExist=false value=1
PUT /?prevValue=x value=1
PUT /?prevIndex=5 value=1
PUT value=1
DELETE /
DELETE /?recursive=true
DELETE /?dir=true
DELETE /?prevValue=x
DELETE /?prevIndex=3
POST /queue value=job1
POST /queue value=job2
POST /queue?ttl=1000 value=job3
POST /queue?dir=true
POST /queue?prevExist=true&prevValue=x&prevIndex=6 value=job4
POST /queue?prevExist=false value=job5
POST /queue
GET /queue?sorted=true
GET /queue?sorted=true&recursive=true
POST / value=rootjob
POST value=rootjob2
POST /queue/deep/er value=1
POST /queue?noValueOnSuccess=true value=1
PUT /_hidden value=1
PUT /_hdir/x value=1
PUT /open/_h/x/y value=1
PUT /open/seen value=1
PUT /open/_f value=1
GET /
GET /open
GET /open?recursive=true
GET /open/_h
GET /open/_h?recursive=true
GET /open/_h/x
GET /_hidden
GET /_hdir
DELETE /_hdir?dir=true
PUT /only/_h value=1
GET /only
GET /only?recursive=true
DELETE /only?dir=true
DELETE /only?recursive=true
PUT /under_score/a_ value=1
GET /under_score
GET /under_score?recursive=true
PUT /ttl?ttl=1000 value=x
PUT /ttl?ttl=500&prevExist=true value=y
PUT /ttl?prevExist=true value=z
GET /ttl
PUT /ttl?ttl=1000 value=x
PUT /ttl?ttl= value=x
GET /ttl
PUT /ttl?ttl=abc value=x
PUT /ttl?ttl=-1 value=x
PUT /ttl?ttl=1.5 value=x
PUT /ttl?ttl=99999999999 value=x
PUT /ttl?ttl=9000000001 value=x
PUT /ttl?ttl=18446744073709551616 value=x
PUT /ttl value=x&ttl=300
PUT /ttl?ttl=300 value=x&ttl=
PUT /ttl?refresh=true&ttl=50
PUT /ttl?refresh=true&ttl=50&prevExist=true
PUT /ttl?refresh=true
PUT /ttl?refresh=true&ttl=
PUT /ttl?refresh=true&ttl=5 value=x
PUT /ttl?refresh=true&ttl=5 value=
PUT /ttl?refresh=false value=x
PUT /ttl?refresh=false&ttl=100 value=w
PUT /ttl?refresh=maybe value=x
PUT /ttl?refresh= value=x
PUT /ttl?refresh=true&ttl=50&prevValue=nope
PUT /ttl?refresh=true&ttl=50&prevValue=w
GET /ttl
PUT /ttl2?refresh=true&ttl=50
PUT /ttl2/x/y?refresh=true&ttl=50
PUT /ttl2?refresh=true&ttl=50&prevExist=true
PUT /ttl2?refresh=true&ttl=50&prevExist=false
PUT /ttl3?refresh=true&ttl=50&dir=true
PUT /ttl?refresh=true&ttl=50&dir=true
GET /ttl
DELETE /ttl?dir=true
POST /refreshed?refresh=true&ttl=50
POST /ttl2?refresh=true&ttl=50
GET /a?recursive=maybe
GET /a?recursive=
GET /a?sorted=maybe
GET /a?quorum=maybe
GET /a?wait=maybe
GET /a?stream=maybe
GET /a?dir=maybe
PUT /a?dir=maybe
PUT /a?dir=
GET /a?recursive=T
GET /a?recursive=1
GET /a?recursive=f&sorted=0&quorum=False&wait=FALSE&stream=F
GET /a?recursive=yes
PUT /a?prevExist=maybe value=1
PUT /a?prevExist= value=1
PUT /a?prevExist=T value=1
PUT /b?prevExist=F value=1
PUT /b?noValueOnSuccess=maybe value=1
PUT /b?noValueOnSuccess=true value=1
PUT /b?noValueOnSuccess=true&prevExist=true value=1
PUT /b?noValueOnSuccess=true&prevValue=1 value=1
PUT /b?noValueOnSuccess=true&prevValue=nope value=1
PUT /b2?noValueOnSuccess=true&prevExist=false value=1
PUT /b3?noValueOnSuccess=true value=1
GET /b?noValueOnSuccess=true
DELETE /b?noValueOnSuccess=true
PUT /b2?wait=true value=1
POST /b2?wait=true value=1
DELETE /b2?wait=true
HEAD /b2?wait=true
GET /b2?waitIndex=x
GET /b2?waitIndex=-3
GET /b2?waitIndex=
GET /b2?wait=false&waitIndex=1
GET /b2?recursive=maybe&waitIndex=x
GET /b2?waitIndex=x&prevIndex=y
PUT /b2?ttl=x&prevExist=maybe value=1
PUT /b2?ttl=x&prevValue= value=1
PUT /b2?ttl=x&dir=maybe value=1
PUT /b2?refresh=maybe&prevExist=maybe value=1
PUT /b2?refresh=true&prevExist=maybe&ttl=x value=1
PUT /b2?noValueOnSuccess=maybe&ttl=x value=1
PUT /b2?noValueOnSuccess=maybe&prevValue= value=1
PUT /b2?noValueOnSuccess=maybe&prevExist=maybe value=1
PUT /b2?wait=true&prevValue= value=1
PUT /b2?wait=true&prevExist=maybe value=1
PUT /b2?wait=maybe&dir=maybe value=1
PUT /b2?sorted=maybe&dir=maybe value=1
PUT /b2?quorum=maybe&stream=maybe value=1
PUT /b2?stream=maybe&wait=true value=1
PUT /b2?quorum=maybe&dir=maybe value=1
GET /b2?wait=true&stream=maybe
PUT /form?value=query value=body
PUT /form?value=query
PUT /form?value=query&value=second
PUT /form value=first&value=second
PUT /form?prevExist=true prevExist=false&value=z
PUT /form value=a%20b%2Bc+d
PUT /form value=%zz
PUT /form value=a;b
PUT /form?value=%zz
PUT /form?a;b value=1
GET /form?recursive=%zz
GET /form?a;b
DELETE /form?%zz
DELETE /form?dir=maybe
DELETE /form recursive=maybe
POST /form?value=%zz
GET /form?unknown=1
PUT /form?unknown=1 value=q&other=2
PUT /special/%3Ca%3E%26%22b%22 value=<v>%26"q"%5C
GET /special
GET /special/%3Ca%3E%26%22b%22
PUT /special/uml%C3%A4ut value=%E4%BD%A0%E5%A5%BD
GET /special/uml%C3%A4ut
PUT /special/sp%20ace value=1
PUT /special/in%2Fside value=1
GET /special?recursive=true
PUT /special/bad value=%ff%fe
PUT /special/line value=a%0Ab%09c%0D%00%7F%E2%80%A8
GET /special/line
PUT /special/plus+sign value=1
PUT /special/pct%25 value=1
PUT /special/dots... value=1
PUT /special/..dots value=1
PUT /special/.hidden value=1
PUT /special/a.b value=1
PUT /sortme/b value=1
PUT /sortme/a value=1
PUT /sortme/a-b value=1
PUT /sortme/a/b value=1
PUT /sortme/ab/c value=1
PUT /sortme/a.b/c value=1
PUT /sortme/A value=1
GET /sortme?sorted=true
GET /sortme?sorted=true&recursive=true
PUT //foo value=1
PUT /foo//bar value=1
PUT /foo/../bar value=1
PUT /foo/./bar?prevExist=true value=1
GET /foo/..
GET /foo//bar?recursive=true
DELETE /foo//bar
PUT /trail/ value=1
PUT /trail/// value=1
GET /trail
OPTIONS /foo
OPTIONS /
PATCH /foo value=1
TRACE /foo
LINK /foo
PATCH /v2x
DELETE /trail
`

// parseTable reads lines of a table.
func parseTable(table string) []ask {
	var all []ask
	for line := range strings.Lines(table) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		method, rest, _ := strings.Cut(line, " ")
		path, body, _ := strings.Cut(rest, " ")
		if !strings.HasPrefix(path, "/") {
			path, body = "", path
		}
		all = append(all, ask{method: method, path: "/v2/keys" + path, body: body})
	}
	return all
}

// If this fails, a client written for etcd 3.4's v2 API is answered otherwise
// by Kvorum: another status, code, text or JSON.
func TestKeysAsEtcd(t *testing.T) {
	p := newPair(t)
	for _, a := range parseTable(keysTable) {
		p.same(a)
	}
	for _, a := range []ask{
		{method: "PUT", path: "/v2/keys/types", body: `{"value":"x"}`, contentType: "application/json"},
		{method: "PUT", path: "/v2/keys/types", body: `value=x`, contentType: "text/plain"},
		{method: "PUT", path: "/v2/keys/types", body: `value=x`, contentType: "application/x-www-form-urlencoded; charset=utf-8"},
		{method: "PUT", path: "/v2/keys/types?value=q", body: "--b\r\nContent-Disposition: form-data; name=\"value\"\r\n\r\nx\r\n--b--\r\n", contentType: "multipart/form-data; boundary=b"},
		{method: "PUT", path: "/v2/keys/types", body: `value=x`, contentType: "bad type;;"},
		{method: "DELETE", path: "/v2/keys/types", body: `prevValue=nope`, contentType: "application/x-www-form-urlencoded"},
		{method: "GET", path: "/v2/keys/types", body: `recursive=maybe`, contentType: "application/x-www-form-urlencoded"},
		{method: "GET", path: "/v2"},
		{method: "GET", path: "/v2/"},
		{method: "GET", path: "/v2/nothing"},
		{method: "GET", path: "/v2/keysx"},
	} {
		p.same(a)
	}
}
