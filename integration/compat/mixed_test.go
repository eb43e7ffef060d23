package compat

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/integration/compat/process"
)

// mixedCluster is a cluster in which the named members are etcd 3.7 and the others are Kvorum.
func mixedCluster(t *testing.T, etcds ...string) *env {
	t.Helper()
	return mixedClusterWith(t, nil, etcds...)
}

// mixedClusterWith gives all members more flags.
func mixedClusterWith(t *testing.T, args []string, etcds ...string) *env {
	t.Helper()
	kvorum, etcd := kvorumBinary(t), etcdBinary(t)
	c := startCluster(t, process.Options{Binary: kvorum, Size: 3, Args: args, Prepare: func(m *process.Member, _ string) error {
		for _, name := range etcds {
			if m.Name == name {
				m.Binary = etcd
			}
		}
		return nil
	}})
	return newEnv(t, c)
}

// sameHash waits until all members have the same history, and compares.
func (e *env) sameHash(rev int64) {
	e.t.Helper()
	var all []string
	for _, m := range e.cluster.Members {
		// A linearizable read through the member: it has applied everything afterwards.
		if _, err := newClient(e.t, m.Endpoint()).Get(e.ctx, "x"); err != nil {
			e.t.Fatalf("read through %s: %v", m.Name, err)
		}
		h, err := e.HashKV(e.ctx, m.ClientURL, rev)
		if err != nil {
			e.t.Fatalf("hash of %s: %v", m.Name, err)
		}
		all = append(all, fmt.Sprintf("%08x", h.Hash))
	}
	for _, h := range all {
		if h != all[0] {
			e.t.Fatalf("hashes at revision %d differ: %v", rev, all)
		}
	}
}

// Who moves from etcd to Kvorum one member at a time must have a working cluster at every step, whoever leads.
func TestMixedCluster(t *testing.T) {
	if *targetFlag != "kvorum" {
		t.Skip("needs Kvorum as the target")
	}
	for _, etcds := range [][]string{{"m1", "m2"}, {"m3"}} {
		t.Run(strings.Join(etcds, "+")+" are etcd", func(t *testing.T) {
			e := mixedCluster(t, etcds...)
			leaders := map[string]bool{}
			for i := range e.cluster.Members {
				leaders[e.makeLeader(i)] = true
				e.history()
				e.sameHash(e.put("last", fmt.Sprint(i)))
			}
			if len(leaders) != 3 {
				t.Errorf("only %v have led", leaders)
			}
			// The leader is lost; the two others of different kinds go on.
			e.cluster.Members[2].Kill()
			rest := newEnv(t, &process.Cluster{Members: e.cluster.Members[:2]})
			// A write that the lost leader took with it times out; the next one finds the new leader.
			var err error
			for range 3 {
				if _, err = rest.Put(rest.ctx, rest.key("without"), "the third"); err == nil {
					break
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := e.cluster.Members[2].Start(); err != nil {
				t.Fatal(err)
			}
			e.sameHash(e.put("with", "the third again"))
		})
	}
}

// makeLeader hands leadership to the i-th member and returns its name.
func (e *env) makeLeader(i int) string {
	e.t.Helper()
	m := e.cluster.Members[i]
	target, err := e.Status(e.ctx, m.Endpoint())
	if err != nil {
		e.t.Fatal(err)
	}
	id := target.Header.MemberId
	for _, from := range e.cluster.Members {
		status, err := e.Status(e.ctx, from.Endpoint())
		if err != nil {
			e.t.Fatal(err)
		}
		if status.Leader == id {
			return m.Name
		}
		if status.Leader != status.Header.MemberId {
			continue
		}
		if _, err := newClient(e.t, from.Endpoint()).MoveLeader(e.ctx, id); err != nil {
			e.t.Fatalf("move the leader from %s to %s: %v", from.Name, m.Name, err)
		}
		return m.Name
	}
	e.t.Fatal("no member leads")
	return ""
}
