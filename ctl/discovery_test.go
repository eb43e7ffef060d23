package ctl

import (
	"slices"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/srv/srvtest"
)

// If this fails, the tool asks other members than those that the domain names.
func TestEndpointsOfADomain(t *testing.T) {
	resolver := srvtest.Start(t,
		"_etcd-client-ssl._tcp.cluster.test. 60 IN SRV 0 0 2379 a.cluster.test.",
		"_etcd-client._tcp.cluster.test. 60 IN SRV 0 0 2378 b.cluster.test.",
		"_etcd-client-blue._tcp.cluster.test. 60 IN SRV 0 0 2377 c.cluster.test.")
	for _, c := range []struct {
		flags globalFlags
		want  string
	}{
		{globalFlags{srvDomain: "cluster.test", insecureSRV: true}, "https://a.cluster.test:2379 http://b.cluster.test:2378"},
		{globalFlags{srvDomain: "cluster.test"}, "https://a.cluster.test:2379"},
		{globalFlags{srvDomain: "cluster.test", srvName: "blue", insecureSRV: true}, "http://c.cluster.test:2377"},
		{globalFlags{endpoints: []string{"h:1"}}, "h:1"},
	} {
		a := &app{Config: Config{Resolver: resolver}, ctx: t.Context(), global: c.flags}
		got, err := a.endpoints()
		if err != nil || !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%+v: %q, %v; want %q", c.flags, got, err, c.want)
		}
	}
	a := &app{Config: Config{Resolver: resolver}, ctx: t.Context(), global: globalFlags{srvDomain: "nowhere.test", insecureSRV: true}}
	if _, err := a.endpoints(); err == nil || !strings.Contains(err.Error(), "look up endpoints of nowhere.test") {
		t.Errorf("a domain without records: %v", err)
	}
}
