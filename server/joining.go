package server

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/kvorum/kvorum/server/state"
)

// matchRunning finds this member among those of the running cluster: the flags
// must list them all, under the same URLs.
func (c *Config) matchRunning(ctx context.Context, cluster uint64, running, flags []state.Member, self state.Member) (*member, error) {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("error validating peerURLs %s: %s", describeCluster(cluster, running), fmt.Sprintf(format, args...))
	}
	if len(running) != len(flags) {
		return nil, wrong("member count is unequal")
	}
	m := &member{cluster: cluster}
	for _, r := range running {
		f, mismatch := c.findSame(ctx, r, flags)
		switch {
		case f == nil:
			return nil, wrong("PeerURLs: no match found for existing member (%x, %v), last resolver error (%s)", uint64(r.ID), r.PeerURLs, mismatch)
		case f.Name == self.Name:
			m.self = r.ID
		default:
			m.remotes = append(m.remotes, r)
		}
	}
	if m.self == 0 {
		return nil, wrong("the cluster has no member with the peer URLs %v; add it with `kvctl member add` first", self.PeerURLs)
	}
	return m, nil
}

// findSame is the member of the flags that has the URLs of r.
func (c *Config) findSame(ctx context.Context, r state.Member, flags []state.Member) (found *state.Member, mismatch string) {
	for i := range flags {
		if slices.Equal(slices.Sorted(slices.Values(r.PeerURLs)), slices.Sorted(slices.Values(flags[i].PeerURLs))) {
			return &flags[i], ""
		}
	}
	theirs := c.resolved(ctx, r.PeerURLs)
	for i := range flags {
		ours := c.resolved(ctx, flags[i].PeerURLs)
		if slices.Equal(theirs, ours) {
			return &flags[i], ""
		}
		mismatch = fmt.Sprintf("resolved urls: %q != %q", strings.Join(theirs, ","), strings.Join(ours, ","))
	}
	return nil, mismatch
}

// describeCluster writes a cluster as etcd's errors do.
func describeCluster(id uint64, members []state.Member) string {
	texts := make([]string, len(members))
	for i, m := range members {
		texts[i] = fmt.Sprintf("&{ID:%x RaftAttributes:{PeerURLs:%v IsLearner:%t} Attributes:{Name:%s ClientURLs:%v}}", uint64(m.ID), m.PeerURLs, m.IsLearner, m.Name, m.ClientURLs)
	}
	return fmt.Sprintf("{ClusterID:%x Members:[%s] RemovedMemberIDs:[]}", id, strings.Join(texts, " "))
}
