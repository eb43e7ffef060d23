package compat

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"

	"github.com/kvorum/kvorum/integration/compat/process"
)

// restorer turns a snapshot into the data directory of one member of a new cluster.
type restorer func(file string, m *process.Member, initialCluster string) error

// withEtcdutl restores with etcd's own library.
func withEtcdutl(file string, m *process.Member, initialCluster string) error {
	return snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
		SnapshotPath: file, Name: m.Name, OutputDataDir: m.Dir, PeerURLs: []string{m.PeerURL},
		InitialCluster: initialCluster, InitialClusterToken: process.DefaultToken, InitialMmapSize: 64 << 20,
	})
}

// withKvctl restores with Kvorum's control tool.
func withKvctl(binary string) restorer {
	return func(file string, m *process.Member, initialCluster string) error {
		cmd := exec.Command(binary, "snapshot", "restore", file, "--name", m.Name, "--data-dir", m.Dir, //nolint:gosec // our own binary
			"--initial-cluster", initialCluster, "--initial-cluster-token", process.DefaultToken,
			"--initial-advertise-peer-urls", m.PeerURL, "--bump-revision=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("kvctl snapshot restore: %w\n%s", err, out)
		}
		return nil
	}
}

// targetRestorer is the tool that belongs to the target.
func targetRestorer(t *testing.T) restorer {
	t.Helper()
	if *targetFlag == "etcd" {
		return withEtcdutl
	}
	return withKvctl(kvctlBinary(t))
}

// content is what a snapshot must carry over: all keys with all their numbers, history, leases and what hangs on them.
type content struct {
	lease     clientv3.LeaseID
	old       int64
	keys      []string
	revision  int64
	compacted int64
}

// fill writes something of everything.
func (e *env) fill() content {
	e.t.Helper()
	lease, err := e.Grant(e.ctx, 500)
	if err != nil {
		e.t.Fatal(err)
	}
	first := e.history()
	for i := range 200 {
		e.put(fmt.Sprintf("many/%03d", i), fmt.Sprint(i))
	}
	if _, err := e.Compact(e.ctx, first+3, clientv3.WithCompactPhysical()); err != nil {
		e.t.Fatal(err)
	}
	old := e.put("b", "again")
	e.put("b", "last")
	revision := e.put("leased", "v", clientv3.WithLease(lease.ID))
	c := content{lease: lease.ID, old: old, revision: revision, compacted: first + 3}
	c.keys = e.dump()
	return c
}

// dump writes every key of the test with its numbers.
func (e *env) dump(options ...clientv3.OpOption) []string {
	var all []string
	for _, kv := range e.get("", append(options, clientv3.WithPrefix())...).Kvs {
		all = append(all, fmt.Sprintf("%s=%s create %d mod %d version %d lease %x",
			kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease))
	}
	return all
}

// verify compares a restored cluster, through each member, with what was written.
func (e *env) verify(want content) {
	e.t.Helper()
	for _, m := range e.cluster.Members {
		one := *e
		one.Client = newClient(e.t, m.Endpoint())
		got := one.get("", clientv3.WithPrefix())
		if got.Header.Revision != want.revision {
			e.t.Errorf("%s: revision %d, want %d", m.Name, got.Header.Revision, want.revision)
		}
		if keys := one.dump(); fmt.Sprint(keys) != fmt.Sprint(want.keys) {
			e.t.Errorf("%s: keys\n%v\nwant\n%v", m.Name, keys, want.keys)
		}
		if kv := one.get("b", clientv3.WithRev(want.old)).Kvs; len(kv) != 1 || string(kv[0].Value) != "again" {
			e.t.Errorf("%s: b at revision %d is %v", m.Name, want.old, kv)
		}
		_, err := one.Get(e.ctx, e.key("a"), clientv3.WithRev(want.compacted-1))
		wantError(e.t, err, compacted)
		lease, err := one.TimeToLive(e.ctx, want.lease, clientv3.WithAttachedKeys())
		if err != nil || lease.GrantedTTL != 500 || len(lease.Keys) != 1 || string(lease.Keys[0]) != e.key("leased") {
			e.t.Errorf("%s: lease %v, %v", m.Name, lease, err)
		}
	}
	if rev := e.put("after", "v"); rev != want.revision+1 {
		e.t.Errorf("the first write after the restore has revision %d, want %d", rev, want.revision+1)
	}
}

// save writes a snapshot of a cluster to a file.
func (e *env) save() string {
	e.t.Helper()
	stream, err := e.SnapshotWithVersion(e.ctx)
	if err != nil {
		e.t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(e.t.TempDir(), "snapshot.db"))
	if err != nil {
		e.t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := io.Copy(file, stream.Snapshot); err != nil {
		e.t.Fatal(err)
	}
	return file.Name()
}

// A backup that cannot be restored, by the other product too, is no backup and locks the user in.
func TestSnapshotExchange(t *testing.T) {
	target, etcd := targetBinary(t), etcdBinary(t)
	own := targetRestorer(t)
	for _, test := range []struct {
		name    string
		from    string
		restore restorer
		to      string
		size    int
	}{
		{"target to target", target, own, target, 1},
		{"target to three of target", target, own, target, 3},
		{"target to etcd", target, withEtcdutl, etcd, 1},
		{"target to three of etcd", target, withEtcdutl, etcd, 3},
		{"etcd to target", etcd, own, target, 1},
		{"etcd to three of target", etcd, own, target, 3},
		{"etcd's restore, target's start", etcd, withEtcdutl, target, 1},
		{"target's restore, etcd's start", target, own, etcd, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			from := newEnv(t, startCluster(t, process.Options{Binary: test.from, Size: 1}))
			want := from.fill()
			file := from.save()
			to := newEnv(t, startCluster(t, process.Options{
				Binary: test.to, Size: test.size,
				Prepare: func(m *process.Member, initial string) error { return test.restore(file, m, initial) },
			}))
			to.prefix = from.prefix
			to.verify(want)
		})
	}
}

// A stopped member's directory must start under the other product: that is how users move in, and out again.
func TestDataDirectoryExchange(t *testing.T) {
	target, etcd := targetBinary(t), etcdBinary(t)
	for name, binaries := range map[string][2]string{"etcd to target": {etcd, target}, "target to etcd": {target, etcd}} {
		t.Run(name, func(t *testing.T) {
			old := startCluster(t, process.Options{Binary: binaries[0], Size: 1})
			from := newEnv(t, old)
			want := from.fill()
			if !old.Members[0].Terminate() {
				t.Error("the server did not stop when asked to")
			}
			to := newEnv(t, startCluster(t, process.Options{
				Binary: binaries[1], Size: 1,
				Prepare: func(m *process.Member, _ string) error { return os.Rename(old.Members[0].Dir, m.Dir) },
			}))
			to.prefix = from.prefix
			to.verify(want)
		})
	}
}

// A damaged backup must be refused, not restored into a damaged cluster.
func TestDamagedSnapshotIsRefused(t *testing.T) {
	e := newEnv(t, startCluster(t, process.Options{Binary: targetBinary(t), Size: 1}))
	e.fill()
	file := e.save()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	m := &process.Member{Name: "m1", Dir: filepath.Join(t.TempDir(), "m1.etcd"), PeerURL: "http://127.0.0.1:1"}
	if err := targetRestorer(t)(file, m, "m1=http://127.0.0.1:1"); err == nil {
		t.Error("a snapshot with a flipped bit was restored")
	}
}
