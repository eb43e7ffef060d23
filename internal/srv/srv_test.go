package srv_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/srv"
	"github.com/kvorum/kvorum/internal/srv/srvtest"
)

// If this fails, members and clients that are told a domain look for records
// that nobody has written, or lose some of them.
func TestLookup(t *testing.T) {
	resolver := srvtest.Start(t,
		"_etcd-server-ssl._tcp.both.test. 60 IN SRV 0 0 2380 a.both.test.",
		"_etcd-server._tcp.both.test. 60 IN SRV 0 0 2381 b.both.test.",
		"_etcd-client-two._tcp.both.test. 60 IN SRV 0 0 2379 c.both.test.",
		"_etcd-client-ssl-two._tcp.both.test. 60 IN SRV 0 0 2378 d.both.test.",
	)
	for _, c := range []struct {
		q    srv.Question
		want []string
	}{
		{srv.Question{Service: srv.Server}, []string{"https://a.both.test:2380", "http://b.both.test:2381"}},
		{srv.Question{Service: srv.Server, SecureOnly: true}, []string{"https://a.both.test:2380"}},
		{srv.Question{Service: srv.Client, Name: "two"}, []string{"https://d.both.test:2378", "http://c.both.test:2379"}},
	} {
		c.q.Domain, c.q.Resolver = "both.test", resolver
		targets, err := srv.Lookup(t.Context(), c.q)
		var got []string
		for _, target := range targets {
			got = append(got, target.URL())
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q, %v; want %q", c.q, got, err, c.want)
		}
	}
	_, err := srv.Lookup(t.Context(), srv.Question{Service: srv.Client, Domain: "nowhere.test", Resolver: resolver})
	for _, want := range []string{"error querying DNS SRV records for _etcd-client-ssl", "error querying DNS SRV records for _etcd-client "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a domain without records: %v, want %q in it", err, want)
		}
	}
}
