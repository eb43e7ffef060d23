package server

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/state"
)

// If this fails, the cluster writes what one of its members cannot read, or never
// leaves an old version.
func TestNextClusterVersion(t *testing.T) {
	none, to36 := state.Downgrade{}, state.Downgrade{Enabled: true, TargetVersion: "3.6.0"}
	for _, c := range []struct {
		current   string
		downgrade state.Downgrade
		members   memberVersions
		want      string
	}{
		{"", none, memberVersions{}, "3.0.0"},
		{"", none, memberVersions{lowest: "3.7.0", known: true}, "3.7.0"},
		{"", none, memberVersions{lowest: "3.6.0", known: true}, "3.6.0"},
		{"3.0.0", none, memberVersions{}, ""},
		{"3.0.0", none, memberVersions{lowest: "3.6.0", known: true}, "3.6.0"},
		{"3.6.0", none, memberVersions{lowest: "3.7.0", known: true}, "3.7.0"},
		{"3.7.0", none, memberVersions{lowest: "3.6.0", known: true}, ""}, // only a downgrade lowers it
		{"3.7.0", to36, memberVersions{}, "3.6.0"},
		{"3.6.0", to36, memberVersions{lowest: "3.7.0", known: true}, ""},
		{"3.5.0", to36, memberVersions{lowest: "3.7.0", known: true}, ""},
		{"", to36, memberVersions{lowest: "3.7.0", known: true}, ""},
	} {
		if got := nextVersion(c.current, c.downgrade, c.members); got != c.want {
			t.Errorf("%q, %+v, %+v: %q, want %q", c.current, c.downgrade, c.members, got, c.want)
		}
	}
}

// eventually waits for something that must come about.
func (m *testMember) eventually(what string, ok func() error) {
	m.t.Helper()
	deadline := time.NewTimer(testWait)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			m.t.Fatalf("%s: %v", what, err)
		}
	}
}

func (m *testMember) wantVersion(cluster string, d state.Downgrade) {
	m.t.Helper()
	m.eventually("cluster version "+cluster, func() error {
		if got, storage, down := m.machine.ClusterVersion(), m.machine.StorageVersion(), m.machine.Downgrade(); got != cluster || storage != cluster || down != d {
			return fmt.Errorf("cluster %q, storage %q, downgrade %+v", got, storage, down)
		}
		return nil
	})
}

// If this fails, a downgraded cluster stays marked as being downgraded for ever,
// or an unfinished downgrade is forgotten.
func TestDowngradeEndsWhenAllMembersRunTheTarget(t *testing.T) {
	m := startMember(t, func(c *Config) { c.DowngradeCheckTime = 10 * time.Millisecond })
	m.wantVersion("3.7.0", state.Downgrade{})
	client := pb.NewMaintenanceClient(m.conn)
	must[*pb.DowngradeResponse](t)(client.Downgrade(m.ctx, &pb.DowngradeRequest{Action: pb.DowngradeRequest_ENABLE, Version: "3.6"}))
	begun := state.Downgrade{Enabled: true, TargetVersion: "3.6.0"}
	m.wantVersion("3.6.0", begun)
	m.eventually("a snapshot of the log", func() error {
		if names, err := filepath.Glob(filepath.Join(m.snapDir, "*.snap")); err != nil || len(names) == 0 {
			return fmt.Errorf("none in %s: %v", m.snapDir, err)
		}
		return nil
	})
	// This member runs 3.7, so the downgrade is not complete.
	for range 20 {
		must[*pb.PutResponse](t)(pb.NewKVClient(m.conn).Put(m.ctx, &pb.PutRequest{Key: []byte("k")}))
	}
	m.wantVersion("3.6.0", begun)
	must[*pb.DowngradeResponse](t)(client.Downgrade(m.ctx, &pb.DowngradeRequest{Action: pb.DowngradeRequest_CANCEL}))
	m.wantVersion("3.7.0", state.Downgrade{})
	// As a cluster comes from 3.8, all of whose members are replaced.
	if err := m.proposeInternal(m.ctx, downgradeInfo(true, "3.7.0")); err != nil {
		t.Fatal(err)
	}
	m.wantVersion("3.7.0", state.Downgrade{})
}
