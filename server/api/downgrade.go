package api

import (
	"context"
	"fmt"
	"strings"

	"github.com/coreos/go-semver/semver"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/membershippb"
	"github.com/kvorum/kvorum/server/state"
)

// Downgrade checks, starts or ends a downgrade by one minor version. Once one is
// enabled, the leader lowers the cluster version and with it the version of the
// files. Members of the target version can then replace those of this one; until
// the first of them has, a cancel takes everything back.
func (m Maintenance) Downgrade(ctx context.Context, r *pb.DowngradeRequest) (*pb.DowngradeResponse, error) {
	if err := m.member.ReadBarrier(ctx); err != nil {
		return nil, m.errors.Status(err)
	}
	version := m.machine.ClusterVersion()
	var err error
	switch r.Action {
	case pb.DowngradeRequest_VALIDATE:
		_, err = m.downgradeTarget(r.Version, version)
	case pb.DowngradeRequest_ENABLE:
		err = m.enableDowngrade(ctx, r.Version, version)
	case pb.DowngradeRequest_CANCEL:
		if m.machine.Downgrade().Enabled {
			err = m.setDowngrade(ctx, false, "")
		}
	default:
		err = ErrUnknownMethod
	}
	if err != nil {
		return nil, m.errors.Status(err)
	}
	return &pb.DowngradeResponse{Header: m.current(), Version: majorMinor(version)}, nil
}

// downgradeTarget is the version X.Y.0 that text names, if the cluster can be
// downgraded to it now.
func (m Maintenance) downgradeTarget(text, cluster string) (string, error) {
	target, err := parseTarget(text)
	if err != nil {
		return "", err
	}
	current, err := semver.NewVersion(cluster)
	switch {
	case cluster == "":
		return "", ErrClusterVersion
	case err != nil:
		return "", fmt.Errorf("cluster version %q: %w", cluster, err)
	case target.Major != current.Major || target.Minor != current.Minor-1:
		return "", ErrDowngradeTarget
	case m.machine.Downgrade().Enabled:
		return "", ErrDowngradeInProgress
	}
	return target.String(), nil
}

// parseTarget reads X.Y or X.Y.Z; only X and Y count.
func parseTarget(text string) (*semver.Version, error) {
	if strings.Count(text, ".") == 1 {
		text += ".0"
	}
	v, err := semver.NewVersion(text)
	if err != nil {
		return nil, state.ErrDowngradeVersion
	}
	return &semver.Version{Major: v.Major, Minor: v.Minor}, nil
}

func (m Maintenance) enableDowngrade(ctx context.Context, text, cluster string) error {
	target, err := m.downgradeTarget(text, cluster)
	if err != nil {
		return err
	}
	return m.setDowngrade(ctx, true, target)
}

func (m Maintenance) setDowngrade(ctx context.Context, enabled bool, target string) error {
	_, err := m.member.Propose(ctx, &pb.InternalRaftRequest{
		DowngradeInfoSet: &membershippb.DowngradeInfoSetRequest{Enabled: enabled, Ver: target},
	})
	return err
}

// majorMinor is 3.7 of 3.7.0.
func majorMinor(version string) string {
	if i := strings.LastIndexByte(version, '.'); strings.Count(version, ".") == 2 {
		return version[:i]
	}
	return version
}
