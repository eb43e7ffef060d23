package server

import (
	"context"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kvorum/kvorum/server/state"
)

// memberID is etcd's: the first 8 bytes of SHA-1 over the sorted peer URLs, the
// token and, for a member added at run time, the second of the addition.
// (spec: member and cluster IDs)
func memberID(peerURLs []string, token string, added *time.Time) state.MemberID {
	sorted := slices.Sorted(slices.Values(peerURLs))
	text := strings.Join(sorted, "") + token
	if added != nil {
		text += strconv.FormatInt(added.Unix(), 10)
	}
	sum := sha1.Sum([]byte(text))
	return state.MemberID(binary.BigEndian.Uint64(sum[:8]))
}

// clusterID is the first 8 bytes of SHA-1 over the members' IDs in order.
func clusterID(members []state.Member) uint64 {
	ids := make([]uint64, len(members))
	for i, m := range members {
		ids[i] = uint64(m.ID)
	}
	slices.Sort(ids)
	var text []byte
	for _, id := range ids {
		text = binary.BigEndian.AppendUint64(text, id)
	}
	sum := sha1.Sum(text)
	return binary.BigEndian.Uint64(sum[:8])
}

// parseInitialCluster reads name=url,name=url2,…; a name may come more than
// once and collects its URLs.
func parseInitialCluster(text, token string) ([]state.Member, error) {
	urls := map[string][]string{}
	var names []string
	seen := map[string]bool{}
	for part := range strings.SplitSeq(text, ",") {
		name, u, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || name == "" || u == "" {
			return nil, fmt.Errorf("--initial-cluster: %q is not name=url", part)
		}
		parsed, err := parseURL(u)
		if err != nil {
			return nil, fmt.Errorf("--initial-cluster: %w", err)
		}
		if seen[parsed.String()] {
			return nil, fmt.Errorf("initial cluster %s has duplicate url: %s", text, parsed)
		}
		seen[parsed.String()] = true
		if urls[name] == nil {
			names = append(names, name)
		}
		urls[name] = append(urls[name], parsed.String())
	}
	members := make([]state.Member, 0, len(names))
	for _, name := range names {
		slices.Sort(urls[name])
		members = append(members, state.Member{ID: memberID(urls[name], token, nil), Name: name, PeerURLs: urls[name]})
	}
	slices.SortFunc(members, func(a, b state.Member) int {
		switch {
		case a.ID < b.ID:
			return -1
		case a.ID > b.ID:
			return 1
		}
		return 0
	})
	return members, nil
}

// initialMembers is the cluster that the flags describe, with this member in it
// under exactly the URLs that it advertises.
func (c *Config) initialMembers(ctx context.Context) (all []state.Member, self state.Member, err error) {
	text := c.InitialCluster
	if text == "" {
		parts := make([]string, len(c.AdvertisePeerURLs))
		for i, u := range c.AdvertisePeerURLs {
			parts[i] = c.Name + "=" + u.String()
		}
		text = strings.Join(parts, ",")
	}
	all, err = parseInitialCluster(text, c.InitialClusterToken)
	if err != nil {
		return nil, self, err
	}
	at := slices.IndexFunc(all, func(m state.Member) bool { return m.Name == c.Name })
	if at < 0 {
		return nil, self, fmt.Errorf("couldn't find local name %q in the initial cluster configuration", c.Name)
	}
	self = all[at]
	return all, self, c.matchAdvertised(ctx, self)
}

// matchAdvertised compares the two lists of this member's peer URLs. Names are
// looked up only when the texts differ, as a member's own name may not be in the
// DNS before it runs.
func (c *Config) matchAdvertised(ctx context.Context, self state.Member) error {
	advertised := urlStrings(c.AdvertisePeerURLs)
	if slices.Equal(slices.Sorted(slices.Values(advertised)), slices.Sorted(slices.Values(self.PeerURLs))) {
		return nil
	}
	listed, mine := c.resolved(ctx, self.PeerURLs), c.resolved(ctx, advertised)
	if slices.Equal(listed, mine) {
		return nil
	}
	has, flag := "--initial-cluster has "+c.Name+"=", "--initial-advertise-peer-urls="+strings.Join(advertised, ",")
	for i, u := range listed {
		if slices.Contains(mine, u) {
			continue
		}
		if len(mine) != len(listed) {
			return fmt.Errorf("%s%s but missing from %s (len(%q) != len(%q))", has, u, flag, mine, listed)
		}
		return fmt.Errorf("%s%s but missing from %s (resolved urls: %q != %q)", has, u, flag, mine[i], u)
	}
	for _, u := range mine {
		if !slices.Contains(listed, u) {
			return fmt.Errorf("--initial-advertise-peer-urls has %s but missing from --initial-cluster=%s", u, c.InitialCluster)
		}
	}
	return fmt.Errorf("%s%s but %s (a URL is there twice)", has, strings.Join(listed, ","), flag)
}
