package v2

import (
	"regexp"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/process"
)

// authTable is a story: METHOD, user:password or -, path below /v2, JSON or
// form. What Kvorum does otherwise (docs/v2.md) is not in it.
const authTable = `
GET - /auth/enable
GET - /auth/users
GET - /auth/users/
GET - /auth/roles
GET - /auth/roles/root
GET - /auth/roles/guest
GET - /auth/roles/a/b
GET - /auth/users/a/b
GET - /auth
GET - /auth/x
POST - /auth/users
POST - /auth/users/x
POST - /auth/roles
PATCH - /auth/roles/x
POST - /auth/enable
HEAD - /auth/enable
DELETE - /auth/enable
PUT - /auth/enable
PUT - /auth/users/u {"user":"u"}
PUT - /auth/users/u {"user":"u","password":"pw"}
PUT - /auth/users/u {"user":"u","password":"pw2"}
PUT - /auth/users/u {"user":"u"}
PUT - /auth/users/u {"user":"u","roles":["x"]}
PUT - /auth/users/u {"user":"u","password":"pw2","roles":["x"]}
GET - /auth/users/u
PUT - /auth/users/v {"user":"v","password":"pw","roles":["a","b"]}
GET - /auth/users/v
GET - /auth/users
PUT - /auth/users/v {"user":"v","grant":["a"]}
PUT - /auth/users/v {"user":"v","grant":["c","d"]}
PUT - /auth/users/v {"user":"v","grant":["e"],"revoke":["c"]}
PUT - /auth/users/v {"user":"v","revoke":["zz"]}
PUT - /auth/users/v {"user":"v","revoke":["a","b","d","e"]}
PUT - /auth/users/v {"user":"v","revoke":["a"]}
GET - /auth/users/v
PUT - /auth/users/nope {"user":"nope","grant":["a"]}
PUT - /auth/users/nope {"user":"nope","password":"x","grant":["a"]}
PUT - /auth/users/nope {"user":"other","password":"x"}
PUT - /auth/users/nope {"password":"x"}
PUT - /auth/users/nope {bad
PUT - /auth/users/nope
DELETE - /auth/users/nope
DELETE - /auth/users/v
GET - /auth/users/v
PUT - /auth/users/root {"user":"root","password":"pw"}
GET - /auth/users/root
PUT - /auth/users/root {"user":"root","grant":["u1"]}
PUT - /auth/users/root {"user":"root","revoke":["u1"]}
PUT - /auth/roles/rr {"role":"rr","permissions":{"kv":{"read":["/a","/pub/*"],"write":["/pub/*"]}}}
PUT - /auth/roles/rr {"role":"rr","permissions":{"kv":{"read":["/a","/pub/*"],"write":["/pub/*"]}}}
PUT - /auth/roles/rr {"role":"rr"}
GET - /auth/roles/rr
PUT - /auth/roles/r0 {"role":"r0"}
GET - /auth/roles/r0
PUT - /auth/roles/rr {"role":"rr","grant":{"kv":{"read":["/b"],"write":[]}}}
PUT - /auth/roles/rr {"role":"rr","grant":{"kv":{"read":["/b"]}}}
PUT - /auth/roles/rr {"role":"rr","grant":{"kv":{"write":["/b","/c*"]}},"revoke":{"kv":{"read":["/b"]}}}
PUT - /auth/roles/rr {"role":"rr","revoke":{"kv":{"read":["/nope"]}}}
GET - /auth/roles
PUT - /auth/roles/rr {"role":"rr","revoke":{"kv":{"read":["/pub/*","/a"],"write":["/pub/*","/b","/c*"]}}}
PUT - /auth/roles/rr {"role":"rr","permissions":{"kv":{}},"grant":{"kv":{"read":["/b"]}}}
PUT - /auth/roles/rr {"role":"rr","permissions":{"kv":{"read":["/x"]}},"grant":{"kv":{"read":["/b"]}}}
PUT - /auth/roles/rr {"role":"xx","grant":{"kv":{"read":["/b"]}}}
PUT - /auth/roles/nope {"role":"nope","grant":{"kv":{"read":["/b"]}}}
PUT - /auth/roles/rx {"role":"rx","permissions":{"kv":{"read":["/b"],"write":["*","nolead"]}}}
GET - /auth/roles/rx
PUT - /auth/roles/rr {bad
PUT - /auth/roles/root {"role":"root","grant":{"kv":{"read":["/b"]}}}
PUT - /auth/roles/root {"role":"root"}
DELETE - /auth/roles/root
DELETE - /auth/roles/nope
GET - /auth/roles/nope
DELETE - /auth/roles/rx
DELETE - /auth/roles/rr
DELETE - /auth/roles/r0
PUT - /auth/enable
PUT - /auth/enable
PUT root:pw /auth/enable
GET - /auth/enable
GET - /auth/roles/guest
GET root:pw /auth/roles
GET - /auth/users
GET u:pw2 /auth/users/u
GET root:pw /auth/users/u
GET root:pw /auth/users
GET root:wrong /auth/users
GET nobody:x /auth/users
PUT - /auth/users/u {bad
POST - /auth/users
DELETE root:pw /auth/users/root
PUT - /keys/g value=guest
GET - /keys/g
GET root:wrong /keys/g
GET u:pw2 /keys/g
PUT u:pw2 /keys/g value=1
GET u:wrong /keys/g
DELETE root:pw /auth/roles/guest
GET - /keys/g
GET - /keys/nope
PUT root:pw /auth/roles/p {"role":"p","permissions":{"kv":{"read":["/one","/pub/*"],"write":["/one","/pub/*","/two*"]}}}
PUT root:pw /auth/users/u {"user":"u","grant":["p"]}
PUT u:pw2 /keys/pub/a value=1
PUT u:pw2 /keys/pub?dir=true
PUT u:pw2 /keys/pub value=1
POST u:pw2 /keys/pub value=1
PUT u:pw2 /keys/pub/q?dir=true
GET u:pw2 /keys/pub
GET u:pw2 /keys/pub?recursive=true
GET u:pw2 /keys/pub/q?recursive=true
GET u:pw2 /keys/pub/a
HEAD u:pw2 /keys/pub/a
DELETE u:pw2 /keys/pub?recursive=true
DELETE u:pw2 /keys/pub/q?recursive=true
PUT u:pw2 /keys/one value=1
GET u:pw2 /keys/one
GET u:pw2 /keys/one?recursive=true
DELETE u:pw2 /keys/one?recursive=true
POST u:pw2 /keys/one value=1
PUT u:pw2 /keys/two?dir=true
PUT u:pw2 /keys/two/x value=1
PUT u:pw2 /keys/twofold value=1
GET u:pw2 /keys/two
DELETE u:pw2 /keys/two?recursive=true
GET u:pw2 /keys/
GET u:pw2 /keys/?recursive=true
GET u:pw2 /keys/pub/nope
PUT u:pw2 /keys/pub/nope?prevValue=1 value=2
DELETE u:pw2 /keys/pub/nope
GET u:pw2 /keys/other?wait=true
GET root:pw /keys/nope
GET - /keys/nope?recursive=maybe
PUT u:pw2 /keys/ value=1
POST - /members {"peerURLs":["http://127.0.0.1:1"]}
POST - /members {bad
POST u:pw2 /members {"peerURLs":["http://127.0.0.1:1"]}
DELETE - /members/5
PUT - /members/5 {"peerURLs":["http://127.0.0.1:1"]}
DELETE root:pw /members/5
PUT root:pw /auth/users/u {"user":"u","password":"pw3"}
GET u:pw2 /keys/one
GET u:pw3 /keys/one
PUT root:pw /auth/users/u {"user":"u","revoke":["p"]}
GET u:pw3 /keys/one
DELETE - /auth/enable
DELETE u:pw3 /auth/enable
DELETE root:pw /auth/enable
DELETE root:pw /auth/enable
GET - /auth/users
GET - /keys/g
`

var anyIndex = regexp.MustCompile(`"(modifiedIndex|createdIndex|index)":\+?\d+|X-Etcd-Index: \+?\d+`)

// If this fails, a tool that manages users and roles over the v2 API meets
// other answers than from etcd 3.4, or somebody may do what etcd forbids.
func TestAuthAsEtcd(t *testing.T) {
	p := newPair(t)
	for line := range strings.Lines(authTable) {
		fields := strings.SplitN(strings.TrimSpace(line), " ", 4)
		if len(fields) < 3 {
			continue
		}
		a := ask{method: fields[0], path: "/v2" + fields[2]}
		a.user, a.password, _ = strings.Cut(strings.TrimPrefix(fields[1], "-"), ":")
		if len(fields) == 4 {
			a.body = fields[3]
		}
		if !strings.HasPrefix(fields[2], "/keys") {
			a.contentType = "application/json"
		}
		p.sameButIndexes(a)
	}
}

// sameButIndexes is same where etcd counts changes of users too.
func (p *pair) sameButIndexes(a ask) {
	p.t.Helper()
	p.sameAs(a.String(), func(s *server) string { return anyIndex.ReplaceAllString(s.outline(s.do(a)), "index") })
}

// If this fails, users of the v3 API and of the v2 API are not the same people:
// what one door forbids the other allows.
func TestUsersAreThoseOfV3(t *testing.T) {
	c := start(t, process.Options{Binary: kvorumBinary(t), Size: 1})
	s := newServer(t, "kvorum", c.Members[0].ClientURL)
	json := func(method, path, body string) reply {
		return s.do(ask{method: method, path: path, body: body, contentType: "application/json"})
	}
	json("PUT", "/v2/auth/users/root", `{"user":"root","password":"pw"}`)
	json("PUT", "/v2/auth/roles/p", `{"role":"p","permissions":{"kv":{"read":["/pub/*"]}}}`)
	json("PUT", "/v2/auth/users/u", `{"user":"u","password":"pw","roles":["p"]}`)
	json("PUT", "/v2/auth/enable", "")
	if r := json("POST", "/v3/auth/authenticate", `{"name":"u","password":"pw"}`); r.status != 200 || !strings.Contains(r.body, `"token"`) {
		t.Errorf("the user of v2 cannot log in with v3: %d %s", r.status, r.body)
	}
	if r := json("POST", "/v3/kv/range", `{"key":"YQ=="}`); r.status != 400 || !strings.Contains(r.body, "user name is empty") {
		t.Errorf("auth enabled by v2 does not hold for v3: %d %s", r.status, r.body)
	}
	if r := json("POST", "/v3/auth/authenticate", `{"name":"root","password":"wrong"}`); r.status == 200 {
		t.Errorf("v3 takes a wrong password: %s", r.body)
	}
}
