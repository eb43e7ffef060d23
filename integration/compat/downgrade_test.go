package compat

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"github.com/kvorum/kvorum/integration/compat/process"
)

// downgrade asks for one action and says what came of it.
func (e *env) downgrade(action clientv3.DowngradeAction, version string) (string, error) {
	r, err := e.Downgrade(e.ctx, action, version)
	if err != nil {
		return "", err
	}
	return r.Version, nil
}

// wantVersions waits until every member says so of the cluster, of its files and of the downgrade.
func (e *env) wantVersions(version string, downgrade *pb.DowngradeInfo) {
	e.t.Helper()
	deadline := time.NewTimer(waitMax)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		bad := ""
		for _, m := range e.cluster.Members {
			bad += e.unlikeVersions(m, version, downgrade)
		}
		if bad == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			e.t.Fatal(bad)
		}
	}
}

func (e *env) unlikeVersions(m *process.Member, version string, downgrade *pb.DowngradeInfo) string {
	e.t.Helper()
	status, err := e.Status(e.ctx, m.ClientURL)
	if err != nil {
		return fmt.Sprintf("%s: %v\n", m.Name, err)
	}
	var v struct{ Etcdcluster, Storage string }
	if err := json.Unmarshal([]byte(e.body(m.ClientURL+"/version")), &v); err != nil {
		e.t.Fatal(err)
	}
	d := status.DowngradeInfo
	enabled := e.body(m.PeerURL + "/downgrade/enabled")
	if v.Etcdcluster != version || v.Storage != version || status.StorageVersion != version ||
		d.GetEnabled() != downgrade.GetEnabled() || d.GetTargetVersion() != downgrade.GetTargetVersion() || enabled != fmt.Sprint(downgrade.GetEnabled()) {
		return fmt.Sprintf("%s: %+v, storage %s, downgrade %v, peers are told %s; want %s, %v\n", m.Name, v, status.StorageVersion, d, enabled, version, downgrade)
	}
	return ""
}

func (e *env) body(url string) string {
	e.t.Helper()
	r, err := http.NewRequestWithContext(e.ctx, http.MethodGet, url, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// An operator who goes back by one version follows etcd's pages step by step; an answer that differs stops them half-way.
func TestDowngrade(t *testing.T) {
	e := newEnv(t, startCluster(t, process.Options{Binary: targetBinary(t), Size: 3}))
	e.wantVersions("3.7.0", &pb.DowngradeInfo{})
	for _, c := range []struct {
		version string
		want    wireError
	}{
		{"3.5", wireError{codes.InvalidArgument, "etcdserver: invalid downgrade target version", nil}},
		{"3.7", wireError{codes.InvalidArgument, "etcdserver: invalid downgrade target version", nil}},
		{"4.6", wireError{codes.InvalidArgument, "etcdserver: invalid downgrade target version", nil}},
		{"abc", wireError{codes.InvalidArgument, "etcdserver: wrong downgrade target version format", nil}},
		{"3", wireError{codes.InvalidArgument, "etcdserver: wrong downgrade target version format", nil}},
		{"", wireError{codes.InvalidArgument, "etcdserver: wrong downgrade target version format", nil}},
	} {
		for _, action := range []clientv3.DowngradeAction{clientv3.DowngradeValidate, clientv3.DowngradeEnable} {
			_, err := e.downgrade(action, c.version)
			wantError(t, err, c.want)
		}
	}
	for _, good := range []string{"3.6", "3.6.0", "3.6.5"} {
		if v, err := e.downgrade(clientv3.DowngradeValidate, good); err != nil || v != "3.7" {
			t.Errorf("validate %s: %q, %v", good, v, err)
		}
	}
	if v, err := e.downgrade(clientv3.DowngradeCancel, ""); err != nil || v != "3.7" {
		t.Errorf("cancel of nothing: %q, %v", v, err)
	}
	if v, err := e.downgrade(clientv3.DowngradeEnable, "3.6"); err != nil || v != "3.7" {
		t.Fatalf("enable: %q, %v", v, err)
	}
	begun := &pb.DowngradeInfo{Enabled: true, TargetVersion: "3.6.0"}
	e.wantVersions("3.6.0", begun)
	_, err := e.downgrade(clientv3.DowngradeEnable, "3.6")
	wantError(t, err, wireError{codes.InvalidArgument, "etcdserver: invalid downgrade target version", nil})
	_, err = e.downgrade(clientv3.DowngradeEnable, "3.5")
	wantError(t, err, wireError{codes.FailedPrecondition, "etcdserver: cluster has a downgrade job in progress", nil})
	e.put("meanwhile", "v")
	for _, m := range e.cluster.Members {
		m.Terminate()
	}
	if err := e.cluster.StartAll(); err != nil {
		t.Fatal(err)
	}
	e.wantVersions("3.6.0", begun)
	if v, err := e.downgrade(clientv3.DowngradeCancel, ""); err != nil || v != "3.6" {
		t.Errorf("cancel: %q, %v", v, err)
	}
	e.wantVersions("3.7.0", &pb.DowngradeInfo{})
}

// Who goes back from a cluster that runs both, or from one to the other in the middle, must find the same state.
func TestDowngradeOfMixedCluster(t *testing.T) {
	if *targetFlag != "kvorum" {
		t.Skip("needs Kvorum as the target")
	}
	e := mixedCluster(t, "m3")
	e.wantVersions("3.7.0", &pb.DowngradeInfo{})
	for i, m := range e.cluster.Members {
		leader := e.makeLeader(i)
		// A member that has just lost its leader says so.
		_, err := e.downgrade(clientv3.DowngradeEnable, "3.6")
		for tries := 1; err != nil && tries < 3; tries++ {
			_, err = e.downgrade(clientv3.DowngradeEnable, "3.6")
		}
		if err != nil {
			t.Fatalf("under %s: %v", leader, err)
		}
		e.wantVersions("3.6.0", &pb.DowngradeInfo{Enabled: true, TargetVersion: "3.6.0"})
		if snaps, err := filepath.Glob(filepath.Join(m.Dir, "member", "snap", "*.snap")); err != nil || len(snaps) == 0 {
			t.Errorf("%s has no snapshot of the log for the older version: %v", m.Name, err)
		}
		if _, err := e.downgrade(clientv3.DowngradeCancel, ""); err != nil {
			t.Fatalf("under %s: %v", leader, err)
		}
		e.wantVersions("3.7.0", &pb.DowngradeInfo{})
	}
	if _, err := e.downgrade(clientv3.DowngradeEnable, "3.6"); err != nil {
		t.Fatal(err)
	}
	e.wantVersions("3.6.0", &pb.DowngradeInfo{Enabled: true, TargetVersion: "3.6.0"})
	first := e.cluster.Members[0]
	first.Terminate()
	first.Binary = etcdBinary(t)
	if err := first.Start(); err != nil {
		t.Fatalf("etcd on Kvorum's data in the middle of a downgrade: %v", err)
	}
	e.wantVersions("3.6.0", &pb.DowngradeInfo{Enabled: true, TargetVersion: "3.6.0"})
	e.sameHash(e.put("last", "v"))
}
