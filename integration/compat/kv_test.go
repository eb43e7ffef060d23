package compat

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Every option of a read must pick what etcd picks, or programs see keys they did not ask for.
func TestRangeOptions(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		// Values, versions, create and mod revisions all sort differently from the keys.
		revs := map[string]int64{}
		for _, kv := range []string{"c=1", "a=3", "e=2", "b=5", "d=4", "a=0", "c=9", "a=6"} {
			name, value, _ := strings.Cut(kv, "=")
			revs[kv] = e.put(name, value)
		}
		first := revs["c=1"]
		all := clientv3.WithPrefix()
		sorted := func(by clientv3.SortTarget, order clientv3.SortOrder) clientv3.OpOption {
			return clientv3.WithSort(by, order)
		}
		for _, test := range []struct {
			name    string
			key     string
			options []clientv3.OpOption
			want    string
			count   int64
			more    bool
		}{
			{"one key", "a", nil, "a", 1, false},
			{"absent key", "zz", nil, "", 0, false},
			{"half-open range", "b", []clientv3.OpOption{clientv3.WithRange(e.key("d"))}, "b c", 2, false},
			{"empty range", "d", []clientv3.OpOption{clientv3.WithRange(e.key("b"))}, "", 0, false},
			{"prefix", "", []clientv3.OpOption{all}, "a b c d e", 5, false},
			{"limit", "", []clientv3.OpOption{all, clientv3.WithLimit(2)}, "a b", 5, true},
			{"limit equal to the count", "", []clientv3.OpOption{all, clientv3.WithLimit(5)}, "a b c d e", 5, false},
			{"count only", "", []clientv3.OpOption{all, clientv3.WithCountOnly()}, "", 5, false},
			{"descending", "", []clientv3.OpOption{all, sorted(clientv3.SortByKey, clientv3.SortDescend)}, "e d c b a", 5, false},
			{"by value", "", []clientv3.OpOption{all, sorted(clientv3.SortByValue, clientv3.SortAscend)}, "e d b a c", 5, false},
			{"by version", "", []clientv3.OpOption{all, sorted(clientv3.SortByVersion, clientv3.SortDescend), clientv3.WithLimit(2)}, "a c", 5, true},
			{"by create revision", "", []clientv3.OpOption{all, sorted(clientv3.SortByCreateRevision, clientv3.SortAscend)}, "c a e b d", 5, false},
			{"by mod revision", "", []clientv3.OpOption{all, sorted(clientv3.SortByModRevision, clientv3.SortDescend)}, "a c d b e", 5, false},
			{"by value, no order", "", []clientv3.OpOption{all, sorted(clientv3.SortByValue, clientv3.SortNone)}, "e d b a c", 5, false},
			{"min mod revision", "", []clientv3.OpOption{all, clientv3.WithMinModRev(revs["d=4"])}, "a c d", 5, false},
			{"max mod revision", "", []clientv3.OpOption{all, clientv3.WithMaxModRev(revs["b=5"])}, "b e", 5, false},
			{"min create revision", "", []clientv3.OpOption{all, clientv3.WithMinCreateRev(revs["e=2"])}, "b d e", 5, false},
			{"max create revision", "", []clientv3.OpOption{all, clientv3.WithMaxCreateRev(revs["a=3"])}, "a c", 5, false},
			{"old revision", "", []clientv3.OpOption{all, clientv3.WithRev(revs["e=2"])}, "a c e", 3, false},
			{"serializable", "c", []clientv3.OpOption{clientv3.WithSerializable(), clientv3.WithRev(first)}, "c", 1, false},
		} {
			t.Run(test.name, func(t *testing.T) {
				got := e.get(test.key, test.options...)
				if names := strings.Join(e.names(got), " "); names != test.want {
					t.Errorf("keys %q, want %q", names, test.want)
				}
				if got.Count != test.count || got.More != test.more {
					t.Errorf("count %d more %t, want %d %t", got.Count, got.More, test.count, test.more)
				}
				if got.Header.Revision < revs["a=6"] {
					t.Errorf("header revision %d is older than the last write %d", got.Header.Revision, revs["a=6"])
				}
			})
		}
		old := e.get("a", clientv3.WithRev(revs["a=0"])).Kvs[0]
		if string(old.Value) != "0" || old.Version != 2 || old.CreateRevision != revs["a=3"] || old.ModRevision != revs["a=0"] {
			t.Errorf("a at revision %d is %v", revs["a=0"], old)
		}
		for _, kv := range e.get("", all, clientv3.WithKeysOnly()).Kvs {
			if len(kv.Value) != 0 || kv.ModRevision == 0 || kv.Version == 0 {
				t.Errorf("keys-only gave %v", kv)
			}
		}
	})
}

// From-key and whole-space reads start scans and mirrors: a missed key is lost data for them.
func TestRangeFromKey(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		for _, name := range []string{"x", "y", "z"} {
			e.put(name, name)
		}
		got := e.get("y", clientv3.WithFromKey(), clientv3.WithLimit(2))
		if strings.Join(e.names(got), " ") != "y z" {
			t.Errorf("from y: %v", e.names(got))
		}
		everything, err := e.Get(e.ctx, "\x00", clientv3.WithFromKey(), clientv3.WithCountOnly())
		if err != nil || everything.Count < 3 {
			t.Errorf("the whole space: %v, %v", everything, err)
		}
	})
}

// Kubernetes lists page by page at one revision: a page must not see later writes.
func TestPagingAtOneRevision(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		var want []string
		for i := range 25 {
			want = append(want, fmt.Sprintf("%03d", i))
			e.put(want[i], "v")
		}
		page := e.get("", clientv3.WithPrefix(), clientv3.WithLimit(10))
		rev, got := page.Header.Revision, e.names(page)
		e.put("0005", "late")
		for page.More {
			last := string(page.Kvs[len(page.Kvs)-1].Key)
			next, err := e.Get(e.ctx, last+"\x00", clientv3.WithRange(clientv3.GetPrefixRangeEnd(e.prefix)),
				clientv3.WithLimit(10), clientv3.WithRev(rev))
			if err != nil {
				t.Fatal(err)
			}
			if next.Count != int64(len(want)-len(got)) {
				t.Errorf("count %d after %d keys, want %d", next.Count, len(got), len(want)-len(got))
			}
			page, got = next, append(got, e.names(next)...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages gave %v", got)
		}
	})
}

// The 3.7 client lists through RangeStream: the pieces must add up to the unary answer.
func TestRangeStreamEqualsRange(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		value := strings.Repeat("v", 4000)
		for i := range 120 {
			e.put(fmt.Sprintf("%03d", i), value)
		}
		for name, options := range map[string][]clientv3.OpOption{
			"all": {clientv3.WithPrefix()}, "limit": {clientv3.WithPrefix(), clientv3.WithLimit(50)},
			"count only": {clientv3.WithPrefix(), clientv3.WithCountOnly()}, "keys only": {clientv3.WithPrefix(), clientv3.WithKeysOnly()},
			"nothing": {clientv3.WithRange(e.key("0"))},
		} {
			unary := e.get("", options...)
			stream, err := e.GetStream(e.ctx, e.prefix, options...)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			whole, err := clientv3.GetStreamToGetResponse(stream)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if !slices.Equal(e.names(whole), e.names(unary)) || whole.Count != unary.Count || whole.More != unary.More {
				t.Errorf("%s: stream %d keys count %d more %t, unary %d keys count %d more %t", name,
					len(whole.Kvs), whole.Count, whole.More, len(unary.Kvs), unary.Count, unary.More)
			}
		}
	})
}

// Put's options carry leases and compare-free updates: a wrong one loses a value or a lifetime.
func TestPutOptions(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		lease, err := e.Grant(e.ctx, 600)
		if err != nil {
			t.Fatal(err)
		}
		r1 := e.put("k", "one", clientv3.WithLease(lease.ID))
		answer, err := e.Put(e.ctx, e.key("k"), "two", clientv3.WithPrevKV(), clientv3.WithIgnoreLease())
		if err != nil {
			t.Fatal(err)
		}
		if string(answer.PrevKv.Value) != "one" || answer.PrevKv.Lease != int64(lease.ID) || answer.Header.Revision != r1+1 {
			t.Errorf("previous %v at revision %d", answer.PrevKv, answer.Header.Revision)
		}
		if kv := e.get("k").Kvs[0]; kv.Lease != int64(lease.ID) || string(kv.Value) != "two" {
			t.Errorf("with the lease ignored: %v", kv)
		}
		e.put("k", "", clientv3.WithIgnoreValue())
		if kv := e.get("k").Kvs[0]; kv.Lease != 0 || string(kv.Value) != "two" || kv.Version != 3 {
			t.Errorf("with the value ignored: %v", kv)
		}
		fresh, err := e.Put(e.ctx, e.key("new"), "v", clientv3.WithPrevKV())
		if err != nil || fresh.PrevKv != nil {
			t.Errorf("a new key has previous value %v, %v", fresh.PrevKv, err)
		}
		e.put("empty", "")
		if kv := e.get("empty").Kvs[0]; len(kv.Value) != 0 || kv.Version != 1 {
			t.Errorf("empty value: %v", kv)
		}
	})
}

// A delete that misses keys leaves ghosts; one that takes too many loses data.
func TestDeleteOptions(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		for _, name := range []string{"a", "b", "c", "d"} {
			e.put(name, "v"+name)
		}
		before := e.put("other", "v")
		none, err := e.Delete(e.ctx, e.key("nothing"))
		if err != nil || none.Deleted != 0 || none.Header.Revision != before {
			t.Errorf("deleting nothing: %v, %v", none, err)
		}
		some, err := e.Delete(e.ctx, e.key("b"), clientv3.WithRange(e.key("d")), clientv3.WithPrevKV())
		if err != nil {
			t.Fatal(err)
		}
		if some.Deleted != 2 || len(some.PrevKvs) != 2 || string(some.PrevKvs[1].Value) != "vc" || some.Header.Revision != before+1 {
			t.Errorf("deleted %v", some)
		}
		if names := e.names(e.get("", clientv3.WithPrefix())); !slices.Equal(names, []string{"a", "d", "other"}) {
			t.Errorf("left %v", names)
		}
		if kv := e.get("b", clientv3.WithRev(before)).Kvs; len(kv) != 1 {
			t.Errorf("b is gone from the past too")
		}
		e.put("b", "again")
		if kv := e.get("b").Kvs[0]; kv.Version != 1 || kv.CreateRevision != kv.ModRevision {
			t.Errorf("a key put after its deletion: %v", kv)
		}
	})
}

// What clients know after a write must be what they read, on every member.
func TestReadYourWriteOnEveryMember(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		clients := []*clientv3.Client{}
		for _, m := range e.cluster.Members {
			clients = append(clients, newClient(t, m.Endpoint()))
		}
		for i := range 50 {
			want := fmt.Sprint(i)
			if _, err := clients[i%len(clients)].Put(e.ctx, e.key("k"), want); err != nil {
				t.Fatal(err)
			}
			got, err := clients[(i+1)%len(clients)].Get(e.ctx, e.key("k"))
			if err != nil || string(got.Kvs[0].Value) != want {
				t.Fatalf("read %v, %v after writing %s", got, err, want)
			}
		}
	})
}

// After a compaction old revisions must fail, the boundary must not, and current data must be whole.
func TestCompact(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		r1 := e.put("k", "1")
		r2 := e.put("k", "2")
		r3 := e.put("k", "3")
		if _, err := e.Compact(e.ctx, r2, clientv3.WithCompactPhysical()); err != nil {
			t.Fatal(err)
		}
		if got := e.get("k", clientv3.WithRev(r2)); string(got.Kvs[0].Value) != "2" {
			t.Errorf("at the compacted revision: %v", got.Kvs)
		}
		if got := e.get("k"); string(got.Kvs[0].Value) != "3" || got.Kvs[0].ModRevision != r3 {
			t.Errorf("now: %v", got.Kvs)
		}
		_, err := e.Get(e.ctx, e.key("k"), clientv3.WithRev(r1))
		wantError(t, err, compacted)
		_, err = e.Compact(e.ctx, r2)
		wantError(t, err, compacted)
		_, err = e.Compact(e.ctx, r3+1000000)
		wantError(t, err, futureRevision)
	})
}
