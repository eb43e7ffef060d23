package v2

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// membersTable is asked of three members each; nothing in it changes the
// membership. METHOD, path below /v2, content type or -, JSON.
const membersTable = `
GET /machines
HEAD /machines
POST /machines
GET /machines/x
GET /members
GET /members/
GET /members/leader
GET /members/nothing
GET /members/1234
HEAD /members
PATCH /members
PUT /members
DELETE /members
DELETE /members/zz
DELETE /members/1234
PUT /members/1234 application/json {"peerURLs":["http://127.0.0.1:1"]}
PUT /members/1234 application/json {bad
PUT /members/zz application/json {"peerURLs":["http://127.0.0.1:1"]}
PUT /members/1234 text/plain {"peerURLs":["http://127.0.0.1:1"]}
POST /members
POST /members text/plain {"peerURLs":["http://127.0.0.1:1"]}
POST /members application/json
POST /members application/json {bad
POST /members application/json {}
POST /members application/json []
POST /members application/json {"peerURLs":[]}
POST /members application/json {"peerURLs":[1]}
POST /members application/json {"peerURLs":["x"]}
POST /members application/json {"peerURLs":["ftp://127.0.0.1:1"]}
POST /members application/json {"peerURLs":["http://127.0.0.1"]}
POST /members application/json {"peerURLs":["http://127.0.0.1:1/path"]}
POST /members application/json {"peerURLs":["http://127.0.0.1:1%zz"]}
POST /members application/json;charset=utf-8 {bad
GET /stats
GET /stats/
GET /stats/nothing
POST /stats/self
HEAD /stats/self
DELETE /stats/leader
PUT /stats/store
GET /stats/self
GET /stats/store
`

var (
	hexIDs    = regexp.MustCompile(`"(id|leader)":"[0-9a-f]+"|"[0-9a-f]{12,16}":`)
	urls      = regexp.MustCompile(`https?://127.0.0.1:\d+`)
	times     = regexp.MustCompile(`"(startTime|uptime)":"[^"]*"`)
	numbers   = regexp.MustCompile(`:[0-9.]+([,}])`)
	rateField = regexp.MustCompile(`,"(recv|send)(PkgRate|BandwidthRate)":[0-9.]+`)
	names     = regexp.MustCompile(`"name":"m\d"`)
	roles     = regexp.MustCompile(`State(Leader|Follower)`)
)

// withoutFacts is an answer without what differs from cluster to cluster.
func withoutFacts(text string) string {
	text = rateField.ReplaceAllString(text, "")
	text = hexIDs.ReplaceAllString(text, `"id"`)
	text = urls.ReplaceAllString(text, "url")
	text = times.ReplaceAllString(text, `"$1":"…"`)
	text = numbers.ReplaceAllString(text, ":0$1")
	text = roles.ReplaceAllString(text, "State")
	text = names.ReplaceAllString(text, `"name":"m"`)
	// Members are in order of their IDs, which are made of the URLs.
	head, list, found := strings.Cut(text, `"members":[`)
	if !found {
		return text
	}
	all := strings.Split(strings.TrimSuffix(strings.TrimSpace(list), "}]}"), "},")
	slices.Sort(all)
	return head + strings.Join(all, "},")
}

// roughly is same but for what differs from cluster to cluster.
func (p *pair) roughly(a ask) {
	p.t.Helper()
	p.sameAs(a.String(), func(s *server) string { return withoutFacts(s.outline(s.do(a))) })
}

// If this fails, tools that look after members over the v2 API, such as
// etcdctl cluster-health, are answered otherwise than by etcd 3.4.
func TestMembersAsEtcd(t *testing.T) {
	p := newPairOf(t, 3)
	for line := range strings.Lines(membersTable) {
		fields := strings.SplitN(strings.TrimSpace(line), " ", 4)
		if len(fields) < 2 {
			continue
		}
		a := ask{method: fields[0], path: "/v2" + fields[1]}
		if len(fields) > 2 {
			a.contentType = fields[2]
		}
		if len(fields) > 3 {
			a.body = fields[3]
		}
		p.roughly(a)
	}
	p.leaders()
	p.changes()
}

// leaders asks all members for what only the leader tells.
func (p *pair) leaders() {
	p.t.Helper()
	p.sameAs("leader statistics of all", func(s *server) string {
		var all []string
		for _, url := range s.memberURLs("clientURLs") {
			r := newServer(p.t, s.name, url).do(ask{method: "GET", path: "/v2/stats/leader"})
			all = append(all, fmt.Sprintf("%d with %d followers: %t", r.status, strings.Count(r.body, `"standardDeviation"`), strings.Contains(r.body, "not current leader")))
		}
		slices.Sort(all)
		return strings.Join(all, "\n")
	})
}

// memberURLs are the first URLs of all members that have one.
func (s *server) memberURLs(kind string) []string {
	s.t.Helper()
	var list struct{ Members []map[string]any }
	if err := json.Unmarshal([]byte(s.do(ask{method: "GET", path: "/v2/members"}).body), &list); err != nil {
		s.t.Fatal(err)
	}
	var all []string
	for _, m := range list.Members {
		if urls, ok := m[kind].([]any); ok && len(urls) > 0 {
			all = append(all, fmt.Sprint(urls[0]))
		}
	}
	return all
}

var idField = regexp.MustCompile(`"id":"([0-9a-f]+)"`)

// add adds a member that never starts, and gives its ID. Until all have been
// connected for five seconds both refuse.
func (s *server) add() string {
	s.t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(waitMax); time.Now().Before(deadline); <-tick.C {
		r := s.do(ask{method: "POST", path: "/v2/members", body: `{"peerURLs":["http://127.0.0.1:1"]}`, contentType: "application/json"})
		if r.status == http.StatusInternalServerError {
			continue
		}
		id := idField.FindStringSubmatch(r.body)
		if r.status != http.StatusCreated || id == nil {
			s.t.Fatalf("%s: add a member: %d %s", s.name, r.status, r.body)
		}
		return id[1]
	}
	s.t.Fatalf("%s: no member can be added", s.name)
	return ""
}

// changes adds, changes and removes a member that never starts.
func (p *pair) changes() {
	p.t.Helper()
	ids := map[*server]string{}
	p.sameAs("add a member", func(s *server) string {
		ids[s] = s.add()
		return "added"
	})
	same := func(method, body string) {
		p.t.Helper()
		p.sameAs(method+" "+body, func(s *server) string {
			body := strings.ReplaceAll(body, "PEER", s.memberURLs("peerURLs")[0])
			r := s.do(ask{method: method, path: "/v2/members/" + ids[s], body: body, contentType: "application/json"})
			text := s.outline(r)
			if ids[s] != "" {
				text = strings.ReplaceAll(text, ids[s], "ID")
			}
			return text
		})
	}
	p.roughly(ask{method: "GET", path: "/v2/members"})
	p.roughly(ask{method: "GET", path: "/v2/machines"})
	same("PUT", `{"peerURLs":["http://127.0.0.1:2"]}`)
	same("DELETE", "")
	same("DELETE", "")
	clear(ids)
	same("POST", `{"peerURLs":["PEER"]}`)
}
