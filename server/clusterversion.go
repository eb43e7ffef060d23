package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/kvorum/kvorum/internal/version"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/membershippb"
	"github.com/kvorum/kvorum/server/state"
)

const (
	versionsEvery = 4 * time.Second
	// undecidedVersion stands until every member's version is known.
	undecidedVersion = "3.0.0"
)

// memberVersions are the versions of the members of a cluster.
type memberVersions struct {
	lowest string // X.Y.0
	equal  bool   // all members run it
	known  bool   // all members have answered
}

// nextVersion is the version that the cluster should have next, "" for the one
// that it has. It is the lowest of the members' versions, and never goes down by
// itself. A downgrade lowers it to its target while the members still run what
// they ran, so that members of the target version can replace them; what is
// written from then on is what the target version can read.
func nextVersion(current string, d state.Downgrade, m memberVersions) string {
	switch {
	case d.Enabled:
		if current != "" && older(d.TargetVersion, current) {
			return d.TargetVersion
		}
		return ""
	case !m.known && current == "":
		return undecidedVersion
	case m.known && (current == "" || older(current, m.lowest)):
		return m.lowest
	}
	return ""
}

// runVersions decides, on the leader, the version that all members understand.
func (s *Server) runVersions(ctx context.Context) error {
	decide := func() {
		if s.leading() {
			s.decideVersion(ctx)
		}
	}
	changes := s.node.Changes()
	ticker := time.NewTicker(versionsEvery)
	defer ticker.Stop()
	for {
		decide()
		select {
		case <-changes:
			changes = s.node.Changes()
		case <-s.downgraded:
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Server) decideVersion(ctx context.Context) {
	current, downgrade := s.machine.ClusterVersion(), s.machine.Downgrade()
	if current == version.Storage && !downgrade.Enabled {
		return
	}
	var members memberVersions
	if !downgrade.Enabled {
		members = s.memberVersions(ctx)
	}
	wanted := nextVersion(current, downgrade, members)
	if wanted == "" {
		return
	}
	s.log.Info("updating cluster version", "from", current, "to", wanted, "downgrade", downgrade.Enabled)
	err := s.proposeInternal(ctx, &pb.InternalRaftRequest{ClusterVersionSet: &membershippb.ClusterVersionSetRequest{Ver: wanted}})
	if err != nil && ctx.Err() == nil {
		s.log.Warn("cluster version was not set", "version", wanted, "error", err.Error())
	}
}

// runDowngrade ends, on the leader, a downgrade that is complete: every member
// runs the version that it aimed at.
func (s *Server) runDowngrade(ctx context.Context) error {
	if s.cfg.DowngradeCheckTime == 0 {
		return nil
	}
	every(ctx, s.cfg.DowngradeCheckTime, func(time.Time) {
		d := s.machine.Downgrade()
		if !d.Enabled || !s.leading() {
			return
		}
		m := s.memberVersions(ctx)
		if !m.known || !m.equal || m.lowest != d.TargetVersion {
			return
		}
		s.log.Info("the cluster has been downgraded", "cluster-version", d.TargetVersion)
		if err := s.proposeInternal(ctx, downgradeInfo(false, "")); err != nil && ctx.Err() == nil {
			s.log.Warn("failed to cancel downgrade", "error", err.Error())
		}
	})
	return nil
}

func downgradeInfo(enabled bool, target string) *pb.InternalRaftRequest {
	return &pb.InternalRaftRequest{DowngradeInfoSet: &membershippb.DowngradeInfoSetRequest{Enabled: enabled, Ver: target}}
}

// memberVersions asks every member which version it runs.
func (s *Server) memberVersions(ctx context.Context) memberVersions {
	all := memberVersions{lowest: version.Storage, equal: true, known: true}
	for _, m := range s.machine.Members() {
		if m.ID == s.self {
			continue
		}
		v, ok := s.versionOf(ctx, m.PeerURLs)
		if !ok {
			return memberVersions{}
		}
		all.equal = all.equal && v == version.Storage
		if older(v, all.lowest) {
			all.lowest = v
		}
	}
	return all
}

// followDowngrade tells what the cluster is about, and has the leader act on it
// without waiting for its next look.
func (a *applier) followDowngrade(d state.Downgrade) {
	if d.Enabled {
		a.log.Info("downgrade enabled: members of the target version may replace those of this one, one at a time",
			"target-version", d.TargetVersion, "server-version", version.API)
	} else {
		a.log.Info("downgrade disabled")
	}
	select {
	case a.downgraded <- struct{}{}:
	default: // a look is due already
	}
}

// followVersion tells of the cluster's version. A lower one asks for a snapshot
// of the log: a server of that version reads the membership from it, and must
// find no entry behind it that it does not know.
func (a *applier) followVersion(to string) {
	from := a.told.cluster
	a.tellVersions()
	a.metrics.ClusterVersion(clusterVersionLabel(to))
	if from == "" || !older(to, from) {
		return
	}
	a.log.Info("cluster version downgrade detected, forcing snapshot", "prev-cluster-version", from, "new-cluster-version", to)
	a.forceSnapshot = true
}

// checkVersions refuses data of a version that this server does not know. One
// minor version down is reached by a downgrade of the cluster, never by starting
// an older server on the data.
func checkVersions(cluster, storage string) error {
	if storage != "" && older(version.Storage, storage) {
		return fmt.Errorf("version %q is not supported: the database was written by a newer server, this one knows %s; enable a downgrade while the newer one runs", storage, version.Storage)
	}
	if cluster != "" && older(version.Storage, cluster) {
		return fmt.Errorf("invalid downgrade; server version is lower than determined cluster version: %s is lower than %s; enable a downgrade while the newer server runs", version.Storage, cluster)
	}
	return nil
}

// checkRunning refuses to join a cluster whose version this server does not know.
func checkRunning(ctx context.Context, client *http.Client, peerURLs []string) error {
	for _, u := range peerURLs {
		var v versions
		if err := askPeerJSON(ctx, client, u, "/version", &v); err != nil {
			continue
		}
		if older(version.Storage, v.Cluster) {
			return fmt.Errorf("incompatible with current running cluster: its version is %s, this server's is %s", v.Cluster, version.Storage)
		}
	}
	return nil
}

// older compares X.Y.Z versions by their two first numbers.
func older(a, b string) bool {
	var aMajor, aMinor, bMajor, bMinor int
	_, errA := fmt.Sscanf(a, "%d.%d", &aMajor, &aMinor)
	_, errB := fmt.Sscanf(b, "%d.%d", &bMajor, &bMinor)
	if errA != nil || errB != nil {
		return false
	}
	return aMajor < bMajor || (aMajor == bMajor && aMinor < bMinor)
}

// versionOf asks a member for its version, as X.Y.0.
func (s *Server) versionOf(ctx context.Context, peerURLs []string) (string, bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for _, u := range peerURLs {
		var v versions
		if err := s.getPeerJSON(ctx, u, "/version", &v); err != nil {
			continue
		}
		parts := strings.SplitN(v.Server, ".", 3)
		if len(parts) >= 2 {
			return parts[0] + "." + parts[1] + ".0", true
		}
	}
	return "", false
}
