package compat

import (
	"fmt"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// leaseGrant is the request that the client's Grant has no option for: a lease with an id of one's own.
type leaseGrant = pb.LeaseGrantRequest

// Locks and optimistic writes rest on compares: one wrong answer is a lost update.
func TestTxnCompares(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		lease, err := e.Grant(e.ctx, 600)
		if err != nil {
			t.Fatal(err)
		}
		create := e.put("k", "a")
		mod := e.put("k", "m", clientv3.WithLease(lease.ID))
		k, none := e.key("k"), e.key("none")
		type trial struct {
			name string
			cmp  clientv3.Cmp
			want bool
		}
		var all []trial
		number := func(name string, target func(string) clientv3.Cmp, have int64) {
			for _, offset := range []int64{-1, 0, 1} {
				for op, want := range map[string]bool{"=": offset == 0, "!=": offset != 0, ">": offset < 0, "<": offset > 0} {
					all = append(all, trial{fmt.Sprintf("%s %s have%+d", name, op, offset),
						clientv3.Compare(target(k), op, have+offset), want})
				}
			}
		}
		number("version", clientv3.Version, 2)
		number("create", clientv3.CreateRevision, create)
		number("mod", clientv3.ModRevision, mod)
		number("lease", func(key string) clientv3.Cmp { return clientv3.LeaseValue(key) }, int64(lease.ID))
		for value, ops := range map[string]map[string]bool{
			"l": {"=": false, "!=": true, ">": true, "<": false},
			"m": {"=": true, "!=": false, ">": false, "<": false},
			"n": {"=": false, "!=": true, ">": false, "<": true},
		} {
			for op, want := range ops {
				all = append(all, trial{"value " + op + " " + value, clientv3.Compare(clientv3.Value(k), op, value), want},
					trial{"value of no key " + op + " " + value, clientv3.Compare(clientv3.Value(none), op, value), false})
			}
		}
		all = append(all,
			trial{"absent version", clientv3.Compare(clientv3.Version(none), "=", 0), true},
			trial{"absent create", clientv3.Compare(clientv3.CreateRevision(none), "=", 0), true},
			trial{"absent mod", clientv3.Compare(clientv3.ModRevision(none), ">", 0), false},
			trial{"absent lease", clientv3.Compare(clientv3.LeaseValue(none), "=", 0), true},
			trial{"whole prefix", clientv3.Compare(clientv3.Version(e.prefix).WithPrefix(), ">", 1), true},
			trial{"whole prefix, one fails", clientv3.Compare(clientv3.Version(e.prefix).WithPrefix(), ">", 2), false},
			trial{"range of nothing", clientv3.Compare(clientv3.Version(none).WithRange(none+"z"), "=", 0), true},
		)
		for _, trial := range all {
			got, err := e.Txn(e.ctx).If(trial.cmp).Then(clientv3.OpGet(k)).Else(clientv3.OpGet(k)).Commit()
			if err != nil {
				t.Fatalf("%s: %v", trial.name, err)
			}
			if got.Succeeded != trial.want {
				t.Errorf("%s: %t, want %t", trial.name, got.Succeeded, trial.want)
			}
		}
	})
}

// Operations of one txn are one revision, run in order, and see each other.
func TestTxnOperations(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		before := e.put("old", "o")
		got, err := e.Txn(e.ctx).If(clientv3.Compare(clientv3.Version(e.key("old")), "=", 1)).Then(
			clientv3.OpPut(e.key("new"), "n"),
			clientv3.OpGet(e.key("new")),
			clientv3.OpDelete(e.key("old"), clientv3.WithPrevKV()),
			clientv3.OpGet(e.prefix, clientv3.WithPrefix()),
		).Else(clientv3.OpPut(e.key("wrong"), "w")).Commit()
		if err != nil {
			t.Fatal(err)
		}
		if !got.Succeeded || got.Header.Revision != before+1 || len(got.Responses) != 4 {
			t.Fatalf("answer %v", got)
		}
		if kv := got.Responses[1].GetResponseRange().Kvs; len(kv) != 1 || kv[0].ModRevision != before+1 {
			t.Errorf("the read after the put: %v", kv)
		}
		if d := got.Responses[2].GetResponseDeleteRange(); d.Deleted != 1 || string(d.PrevKvs[0].Value) != "o" {
			t.Errorf("the delete: %v", d)
		}
		if r := got.Responses[3].GetResponseRange(); r.Count != 1 {
			t.Errorf("the read at the end: %v", r)
		}
		after, err := e.Txn(e.ctx).If(clientv3.Compare(clientv3.Version(e.key("old")), "=", 1)).
			Else(clientv3.OpDelete(e.key("nothing"))).Commit()
		if err != nil || after.Succeeded || after.Header.Revision != before+1 {
			t.Errorf("a txn that changes nothing: %v, %v", after, err)
		}
	})
}

// Nested transactions decide on the state before the whole txn, and their changes share its revision.
func TestTxnNested(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		before := e.put("x", "0")
		absent := clientv3.Compare(clientv3.Version(e.key("inner")), "=", 0)
		got, err := e.Txn(e.ctx).Then(
			clientv3.OpPut(e.key("inner"), "outer"),
			clientv3.OpTxn([]clientv3.Cmp{absent},
				[]clientv3.Op{
					clientv3.OpPut(e.key("a"), "then"),
					clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut(e.key("deep"), "d")}, nil),
				},
				[]clientv3.Op{clientv3.OpPut(e.key("a"), "else")}),
		).Commit()
		if err != nil {
			t.Fatal(err)
		}
		inner := got.Responses[1].GetResponseTxn()
		if !inner.Succeeded || len(inner.Responses) != 2 || !inner.Responses[1].GetResponseTxn().Succeeded {
			t.Errorf("nested answer %v", inner)
		}
		for _, kv := range e.get("", clientv3.WithPrefix(), clientv3.WithMinModRev(before+1)).Kvs {
			if kv.ModRevision != before+1 {
				t.Errorf("%s has revision %d, want %d", kv.Key, kv.ModRevision, before+1)
			}
		}
		if kv := e.get("a").Kvs; len(kv) != 1 || string(kv[0].Value) != "then" {
			t.Errorf("a is %v", kv)
		}
		_, err = e.Txn(e.ctx).Then(clientv3.OpPut(e.key("q"), "1"),
			clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut(e.key("q"), "2")}, nil)).Commit()
		wantError(t, err, duplicateKey)
	})
}

// A txn that fails in its middle must leave nothing behind.
func TestTxnIsAllOrNothing(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		before := e.put("k", "v")
		for name, op := range map[string]clientv3.Op{
			"unknown lease":   clientv3.OpPut(e.key("b"), "v", clientv3.WithLease(4242)),
			"future revision": clientv3.OpGet(e.key("k"), clientv3.WithRev(1<<40)),
			"value of no key": clientv3.OpPut(e.key("c"), "", clientv3.WithIgnoreValue()),
		} {
			if _, err := e.Txn(e.ctx).Then(clientv3.OpPut(e.key("a"), "v"), op).Commit(); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
		got := e.get("", clientv3.WithPrefix())
		if got.Header.Revision != before || strings.Join(e.names(got), " ") != "k" {
			t.Errorf("left behind: %v at revision %d, want only k at %d", e.names(got), got.Header.Revision, before)
		}
	})
}

// 128 operations are the most that a txn may have by default: Kubernetes and backup tools use them all.
func TestTxnOf128(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		var ops []clientv3.Op
		for i := range 128 {
			ops = append(ops, clientv3.OpPut(e.key(fmt.Sprintf("%03d", i)), "v"))
		}
		got, err := e.Txn(e.ctx).Then(ops...).Commit()
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range e.get("", clientv3.WithPrefix()).Kvs {
			if kv.ModRevision != got.Header.Revision {
				t.Fatalf("%s has revision %d, the txn %d", kv.Key, kv.ModRevision, got.Header.Revision)
			}
		}
	})
}
