package v2http

import (
	"encoding/json"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/server/state/v2keys"
)

// If this fails, a client reads another value than was stored.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "plain", "<a href=\"x\">&", "umläut 你好", "\x00\x1f\x7f\xff\u2028", `back\slash`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendText(nil, s); string(got) != string(want) {
			t.Errorf("%q is written as %s, want %s", s, got, want)
		}
	})
}

// If this fails, clients that read the order of fields, or TTLs, of etcd's
// answers misread Kvorum's.
func TestAnswerAsText(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	at := func(left time.Duration) int64 { return now.Add(left).UnixNano() }
	for _, c := range []struct {
		answer v2keys.Answer
		want   string
	}{
		{
			v2keys.Answer{Action: v2keys.ActionSet, Node: &v2keys.Node{Path: "/a", Modified: 5, Created: 4}},
			`{"action":"set","node":{"key":"/a","value":"","modifiedIndex":5,"createdIndex":4}}`,
		},
		{
			v2keys.Answer{Action: v2keys.ActionGet, Node: &v2keys.Node{Path: "/", Dir: true}},
			`{"action":"get","node":{"dir":true}}`,
		},
		{
			v2keys.Answer{Action: v2keys.ActionGet, Node: &v2keys.Node{Path: "/d", Dir: true, Modified: 1, Created: 1, Expiration: at(1), Nodes: []*v2keys.Node{{Path: "/d/x", Value: []byte("v"), Modified: 2, Created: 2}}}},
			`{"action":"get","node":{"key":"/d","dir":true,"expiration":"2027-01-15T08:00:00.000000001Z","ttl":1,"nodes":[{"key":"/d/x","value":"v","modifiedIndex":2,"createdIndex":2}],"modifiedIndex":1,"createdIndex":1}}`,
		},
		{
			v2keys.Answer{
				Action: v2keys.ActionExpire, Node: &v2keys.Node{Path: "/a", Modified: 9, Created: 4},
				Prev: &v2keys.Node{Path: "/a", Value: []byte("1"), Expiration: at(-time.Second), Modified: 4, Created: 4},
			},
			`{"action":"expire","node":{"key":"/a","modifiedIndex":9,"createdIndex":4},"prevNode":{"key":"/a","value":"1","expiration":"2027-01-15T07:59:59Z","modifiedIndex":4,"createdIndex":4}}`,
		},
		{
			v2keys.Answer{Action: v2keys.ActionGet, Node: &v2keys.Node{Path: "/a", Expiration: at(99 * time.Second), Modified: 4, Created: 4}},
			`{"action":"get","node":{"key":"/a","value":"","expiration":"2027-01-15T08:01:39Z","ttl":99,"modifiedIndex":4,"createdIndex":4}}`,
		},
	} {
		if got := string(appendAnswer(nil, &c.answer, now)); got != c.want+"\n" {
			t.Errorf("got  %swant %s", got, c.want)
		}
	}
}

// If this fails, a node lives for another time than its client has asked for.
func TestTTLs(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	last := math.MaxInt64/int64(time.Second) - now.Unix() - 1
	for _, c := range []struct {
		text    string
		seconds int64
		lease   bool
	}{
		{"", 0, false}, {"0", 0, true}, {"1", 1, true}, {"86400", 86400, true},
		{"7423372035", last, true}, {"7423372036", 0, false}, {"18446744073709551615", 0, false},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/v2/keys/a?ttl="+c.text, strings.NewReader(""))
		q, wrong := parse(r)
		if wrong != nil {
			t.Fatalf("ttl=%s: %+v", c.text, wrong)
		}
		command := q.command(now, func() int64 { return 77 })
		if command.TtlSeconds != c.seconds || (command.Lease == 77) != c.lease {
			t.Errorf("ttl=%s: %d seconds, lease %d", c.text, command.TtlSeconds, command.Lease)
		}
		if c.lease && command.Expiration != now.Add(time.Duration(c.seconds)*time.Second).UnixNano() {
			t.Errorf("ttl=%s ends at %d", c.text, command.Expiration)
		}
	}
}
