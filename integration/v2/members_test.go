package v2

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/integration/process"
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

func newPairOfThree(t *testing.T) (p *pair, ours, theirs *process.Cluster) {
	t.Helper()
	old := debianEtcd(t)
	ours = start(t, process.Options{Binary: kvorumBinary(t), Size: 3})
	theirs = start(t, process.Options{Binary: old, Size: 3, Args: []string{"--enable-v2"}})
	return &pair{t: t, kvorum: newServer(t, "kvorum", ours.Members[0].ClientURL), etcd: newServer(t, "etcd", theirs.Members[0].ClientURL)}, ours, theirs
}

// roughly is same but for what differs from cluster to cluster.
func (p *pair) roughly(a ask) {
	p.t.Helper()
	got, want := withoutFacts(p.kvorum.outline(p.kvorum.do(a))), withoutFacts(p.etcd.outline(p.etcd.do(a)))
	if got != want {
		p.t.Errorf("%v\nkvorum: %s\netcd:   %s", a, got, want)
	}
}

// If this fails, tools that look after members over the v2 API, such as
// etcdctl cluster-health, are answered otherwise than by etcd 3.4.
func TestMembersAsEtcd(t *testing.T) {
	p, ours, theirs := newPairOfThree(t)
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
	p.leaders(ours, theirs)
	p.changes(ours, theirs)
}

// leaders compares what leaders and others say of themselves.
func (p *pair) leaders(ours, theirs *process.Cluster) {
	p.t.Helper()
	seen := map[int]int{}
	for _, c := range []*process.Cluster{ours, theirs} {
		for _, m := range c.Members {
			r := newServer(p.t, m.Name, m.ClientURL).do(ask{method: "GET", path: "/v2/stats/leader"})
			seen[r.status]++
			if r.status == http.StatusForbidden && r.body != `{"message":"not current leader"}` {
				p.t.Errorf("a follower says %q", r.body)
			}
			if r.status == http.StatusOK && strings.Count(r.body, `"standardDeviation"`) != 2 {
				p.t.Errorf("a leader of three does not tell of two followers: %s", r.body)
			}
		}
	}
	if seen[http.StatusOK] != 2 || seen[http.StatusForbidden] != 4 {
		p.t.Errorf("answers by status: %v; want two leaders and four others", seen)
	}
}

var idField = regexp.MustCompile(`"id":"([0-9a-f]+)"`)

// changes adds, changes and removes a member that never starts.
func (p *pair) changes(ours, theirs *process.Cluster) {
	p.t.Helper()
	const body = `{"peerURLs":["http://127.0.0.1:1"]}`
	ids := map[*server]string{}
	for _, s := range []*server{p.kvorum, p.etcd} {
		// Until all have been connected for five seconds both refuse.
		var added reply
		tick := time.NewTicker(200 * time.Millisecond)
		for deadline := time.Now().Add(waitMax); time.Now().Before(deadline); <-tick.C {
			added = s.do(ask{method: "POST", path: "/v2/members", body: body, contentType: "application/json"})
			if added.status != http.StatusInternalServerError {
				break
			}
		}
		tick.Stop()
		id := idField.FindStringSubmatch(added.body)
		if added.status != http.StatusCreated || id == nil {
			p.t.Fatalf("%s: add a member: %d %s", s.name, added.status, added.body)
		}
		ids[s] = id[1]
	}
	same := func(method, body string, peer func(*process.Cluster) string) {
		p.t.Helper()
		var texts []string
		for s, c := range map[*server]*process.Cluster{p.kvorum: ours, p.etcd: theirs} {
			r := s.do(ask{method: method, path: "/v2/members/" + ids[s], body: strings.ReplaceAll(body, "PEER", peer(c)), contentType: "application/json"})
			texts = append(texts, strings.ReplaceAll(s.outline(r), ids[s], "ID"))
		}
		if texts[0] != texts[1] {
			p.t.Errorf("%s a member with %s\none:   %s\nother: %s", method, body, texts[0], texts[1])
		}
	}
	peer := func(c *process.Cluster) string { return c.Members[1].PeerURL }
	p.roughly(ask{method: "GET", path: "/v2/members"})
	p.roughly(ask{method: "GET", path: "/v2/machines"})
	same("PUT", `{"peerURLs":["PEER"]}`, peer)
	same("PUT", `{"peerURLs":["http://127.0.0.1:2"]}`, peer)
	same("DELETE", "", peer)
	same("DELETE", "", peer)
	ids[p.kvorum], ids[p.etcd] = "", ""
	same("POST", `{"peerURLs":["PEER"]}`, peer)
}
