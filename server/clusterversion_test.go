package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/mvcc"
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
	m.eventually("the metric", func() error {
		now, before := m.row("etcd_cluster_version", "3.6"), m.row("etcd_cluster_version", "3.7")
		if now != 1 || before != 0 {
			return fmt.Errorf("3.6 has %v, 3.7 has %v", now, before)
		}
		return nil
	})
	m.eventually("a snapshot of the log", func() error {
		if names, err := filepath.Glob(filepath.Join(m.snapDir, "*.snap")); err != nil || len(names) == 0 {
			return fmt.Errorf("none in %s: %w", m.snapDir, errors.Join(err, fs.ErrNotExist))
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

// row is the value of a metric that has a label of this value; -1 if none has.
func (m *testMember) row(metric, label string) float64 {
	m.t.Helper()
	for _, r := range m.scrape()[metric].GetMetric() {
		for _, l := range r.Label {
			if l.GetValue() == label {
				return r.GetGauge().GetValue()
			}
		}
	}
	return -1
}

// If this fails, an older server is let loose on data that it does not
// understand.
func TestNewerDataIsRefused(t *testing.T) {
	for _, c := range []struct {
		bucket    mvcc.Bucket
		key, want string
	}{
		{mvcc.BucketMeta, "storageVersion", `version "3.8.0" is not supported`},
		{mvcc.BucketCluster, "clusterVersion", "invalid downgrade; server version is lower than determined cluster version"},
	} {
		dir := t.TempDir()
		m := startMember(t, func(c *Config) { c.DataDir = dir })
		m.wantVersion("3.7.0", state.Downgrade{})
		m.stop()
		cfg := m.cfg
		err := mvcc.Edit(cfg.paths().db(), func(e *mvcc.Editor) error { return e.Set(c.bucket, []byte(c.key), []byte("3.8.0")) })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := New(t.Context(), cfg, m.log); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s of 3.8.0: %v", c.key, err)
		}
	}
}

// If this fails, a server joins a cluster whose data it does not understand.
func TestNewerClusterIsNotJoined(t *testing.T) {
	for cluster, refused := range map[string]bool{"3.8.0": true, "4.0.0": true, "3.7.0": false, "3.6.0": false, "not_decided": false} {
		peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"etcdserver":"3.8.1","etcdcluster":%q,"storage":%q}`, cluster, cluster)
		}))
		err := checkRunning(t.Context(), http.DefaultClient, []string{peer.URL})
		if got := err != nil && strings.Contains(err.Error(), "incompatible with current running cluster"); got != refused {
			t.Errorf("cluster version %s: %v", cluster, err)
		}
		peer.Close()
	}
}
