package server

import (
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/srv/srvtest"
	"github.com/kvorum/kvorum/server/state"
)

// If this fails, a member restored or joined beside etcd gets another ID than
// etcd would give it, and the cluster refuses it.
func TestIDsAreEtcds(t *testing.T) {
	all, self, err := (&Config{
		Name: "default", InitialClusterToken: "etcd-cluster", AdvertisePeerURLs: mustURLs("http://localhost:2380"),
	}).initialMembers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The IDs that every etcd of one member with default flags has.
	if self.ID != 0x8e9e05c52164694d {
		t.Errorf("member ID %x, want 8e9e05c52164694d", uint64(self.ID))
	}
	if id := clusterID(all); id != 0xcdf818194e3a8c32 {
		t.Errorf("cluster ID %x, want cdf818194e3a8c32", id)
	}
}

// If this fails, two members added with the same URLs at different times could
// be taken for one.
func TestAddedMemberIDDependsOnTime(t *testing.T) {
	a, b := time.Unix(1, 0), time.Unix(2, 0)
	urls := []string{"http://h:1"}
	if memberID(urls, "", &a) == memberID(urls, "", &b) {
		t.Error("the ID of an added member must depend on its URLs and the second of its addition")
	}
}

// If this fails, a typing error in --initial-cluster starts a wrong cluster
// instead of being told.
func TestInitialClusterErrors(t *testing.T) {
	for _, c := range []struct{ cluster, advertise, want string }{
		{"other=http://h:1", "http://h:1", "couldn't find local name"},
		{"m=http://h:1,m=http://h:1", "http://h:1", "has duplicate url"},
		{"m=http://h:2", "http://h:1", "missing from --initial-advertise-peer-urls"},
		{"m=http://h:1", "http://h:1,http://h:2", "missing from --initial-cluster"},
		{"m", "http://h:1", "is not name=url"},
		{"m=ftp://h:1", "http://h:1", "URL scheme must be"},
		{"m=http://h:1/path", "http://h:1", "must not contain a path"},
	} {
		cfg := Config{Name: "m", InitialCluster: c.cluster, AdvertisePeerURLs: mustURLs(c.advertise), Discovery: Discovery{Resolver: srvtest.Start(t)}}
		if _, _, err := cfg.initialMembers(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("--initial-cluster %q: error %v, want one with %q", c.cluster, err, c.want)
		}
	}
}

// If this fails, a cluster whose members list each other in another order does
// not form.
func TestMembersAreInIDOrder(t *testing.T) {
	all, err := parseInitialCluster("a=http://h:1,b=http://h:2,c=http://h:3,a=http://h:4", "t")
	if err != nil || len(all) != 3 {
		t.Fatalf("%d members, %v; want 3", len(all), err)
	}
	for i := 1; i < len(all); i++ {
		if all[i-1].ID >= all[i].ID {
			t.Errorf("members are not in ID order: %v", ids(all))
		}
	}
	other, _ := parseInitialCluster("c=http://h:3,a=http://h:4,b=http://h:2,a=http://h:1", "t")
	if clusterID(all) != clusterID(other) {
		t.Error("the order of --initial-cluster changed the cluster ID")
	}
}

func ids(all []state.Member) []state.MemberID {
	var out []state.MemberID
	for _, m := range all {
		out = append(out, m.ID)
	}
	return out
}
