package compat

import (
	"fmt"
	"testing"

	"github.com/kvorum/kvorum/integration/compat/process"
)

// Members of a new cluster find each other by a list that a cluster keeps, whoever of both sides is etcd's.
func TestDiscoveryService(t *testing.T) {
	kvorum, etcd := kvorumBinary(t), etcdBinary(t)
	for _, test := range []struct {
		name, service string
		members       []string
	}{
		{"etcd keeps the list", etcd, []string{kvorum, kvorum, kvorum}},
		{"Kvorum keeps the list", kvorum, []string{kvorum, kvorum, kvorum}},
		{"etcd reads Kvorum's list", kvorum, []string{etcd, kvorum, etcd}},
	} {
		t.Run(test.name, func(t *testing.T) {
			service := newEnv(t, startCluster(t, process.Options{Binary: test.service, Size: 1}))
			const token = "6c007a14875d53d9bf0ef5a6fc0257c817f0fb83"
			if _, err := service.Put(service.ctx, "/_etcd/registry/"+token+"/_config/size", "3"); err != nil {
				t.Fatal(err)
			}
			c := &process.Cluster{}
			for i, binary := range test.members {
				c.Members = append(c.Members, discoveringMember(t, binary, fmt.Sprintf("m%d", i+1), token, service.cluster.Members[0].ClientURL))
			}
			t.Cleanup(func() {
				c.Stop()
				logOnFailure(t, c)
			})
			if err := c.StartAll(); err != nil {
				t.Fatal(err)
			}
			e := newEnv(t, c)
			members, err := e.MemberList(e.ctx)
			if err != nil || len(members.Members) != 3 {
				t.Fatalf("members %v, %v", members, err)
			}
			e.put("k", "v")
			for i := range c.Members {
				if r := e.on(i).get("k"); len(r.Kvs) != 1 {
					t.Errorf("member %d is in another cluster", i)
				}
			}
			late := discoveringMember(t, kvorum, "late", token, service.cluster.Members[0].ClientURL)
			if err := late.Launch(); err != nil {
				t.Fatal(err)
			}
			late.WaitExit()
			if code := late.Ended().ExitCode(); code != 1 {
				t.Errorf("a fourth member exits with %d, want 1:\n%s", code, late.LogTail(3))
			}
		})
	}
}

// discoveringMember is a member, not yet started, that knows the others by a token only.
func discoveringMember(t *testing.T, binary, name, token, service string) *process.Member {
	t.Helper()
	ports, err := process.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	client, peer := fmt.Sprintf("http://127.0.0.1:%d", ports[0]), fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	m := &process.Member{Name: name, Dir: t.TempDir() + "/data", ClientURL: client, PeerURL: peer, Binary: binary}
	m.Args = []string{
		"--name", name, "--data-dir", m.Dir, "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--discovery-token", token, "--discovery-endpoints", service,
	}
	return m
}
