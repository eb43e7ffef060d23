package v2keys

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// If this fails, bytes that somebody has put among the v2 keys stop a member,
// or a node comes back otherwise than it was stored.
func FuzzDecode(f *testing.F) {
	for _, s := range []stored{
		{action: ActionSet, Node: Node{Value: []byte("v"), Created: 3, Modified: 9}},
		{action: ActionCreate, flags: flagDir | flagAside, Node: Node{Dir: true, Created: 1, Modified: 9}},
		{action: ActionUpdate, flags: flagDir | flagExpires | flagModified, Node: Node{Dir: true, Created: 300, Modified: 5, Expiration: -7}},
		{action: ActionCompareAndSwap, flags: flagSilent, Node: Node{Created: 1 << 40, Modified: 9}},
	} {
		f.Add([]byte(Key("/a/b")), s.encode())
	}
	f.Add([]byte(removalKey), removal{ActionExpire, true, 300, "/a"}.encode())
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if r, err := decodeRemoval(value); err == nil {
			if again, err := decodeRemoval(r.encode()); err != nil || again != r {
				t.Errorf("removal %+v comes back as %+v (%v)", r, again, err)
			}
		}
		kv := &mvccpb.KeyValue{Key: key, Value: value, ModRevision: 9, Lease: 5}
		s, err := decode(kv)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("error %v", err)
			}
			return
		}
		again, err := decode(&mvccpb.KeyValue{Key: key, Value: s.encode(), ModRevision: 9, Lease: 5})
		if err != nil || fmt.Sprint(*again) != fmt.Sprint(*s) {
			t.Errorf("%q is %+v, and stored again %+v (%v)", value, s, again, err)
		}
	})
}

// tree is a store and beside it a plain model of what it must hold.
type tree struct {
	t     *testing.T
	store *mvcc.Store
	index uint64
	model map[string]*Node
}

func newTree(t *testing.T) *tree {
	t.Helper()
	store, err := mvcc.Open(filepath.Join(t.TempDir(), "db"), mvcc.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return &tree{t: t, store: store, model: map[string]*Node{}}
}

// apply runs a command on the store and publishes it.
func (tr *tree) apply(r *pb.V2Request) (Outcome, error) {
	tr.index++
	w := tr.store.Write(mvcc.Applied{Index: tr.index, Term: 1})
	out, err := Apply(w, r)
	w.Close()
	tr.store.Publish()
	return out, err
}

// expect is what the model says of a command: the code of its refusal, 0 for
// none. It changes the model.
func (tr *tree) expect(r *pb.V2Request, next mvcc.Revision) Code {
	path := r.Path
	if r.Method == pb.V2Request_CREATE_IN_ORDER {
		path = strings.TrimSuffix(r.Path, "/") + "/" + fmt.Sprintf("%020d", next)
	}
	if path == Root {
		return CodeRoot
	}
	for at := 1; ; at++ {
		i := strings.IndexByte(path[at:], '/')
		if i < 0 {
			break
		}
		at += i
		if above := tr.model[path[:at]]; above != nil && !above.Dir {
			return CodeNotDirectory
		}
	}
	old := tr.model[path]
	switch r.Method {
	case pb.V2Request_DELETE:
		return tr.expectDelete(r, path, old)
	case pb.V2Request_UPDATE:
		switch {
		case old == nil:
			return CodeNotFound
		case old.Dir && len(r.Value) > 0:
			return CodeNotFile
		case !old.Dir:
			old.Value, old.Modified = r.Value, next
		}
		return 0
	case pb.V2Request_CREATE, pb.V2Request_CREATE_IN_ORDER:
		if old != nil {
			return CodeExists
		}
	case pb.V2Request_SET:
		if old != nil && old.Dir {
			return CodeNotFile
		}
	}
	for dir := parent(path); dir != Root && tr.model[dir] == nil; dir = parent(dir) {
		tr.model[dir] = &Node{Path: dir, Dir: true, Created: next, Modified: next}
	}
	tr.model[path] = &Node{Path: path, Dir: r.Dir, Value: r.Value, Created: next, Modified: next}
	return 0
}

func (tr *tree) expectDelete(r *pb.V2Request, path string, old *Node) Code {
	var below []string
	for other := range tr.model {
		if IsBelow(path, other) {
			below = append(below, other)
		}
	}
	switch {
	case old == nil:
		return CodeNotFound
	case old.Dir && !r.Dir && !r.Recursive:
		return CodeNotFile
	case old.Dir && !r.Recursive && len(below) > 0:
		return CodeNotEmpty
	}
	for _, other := range append(below, path) {
		delete(tr.model, other)
	}
	return 0
}

// list is what a recursive read of a directory must find.
func (tr *tree) list(dir string, recursive bool) string {
	var paths []string
	for path := range tr.model {
		if IsBelow(dir, path) && !Hidden(dir, path) && (recursive || parent(path) == dir) {
			paths = append(paths, path)
		}
	}
	slices.SortFunc(paths, func(a, b string) int { return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) })
	var out strings.Builder
	for _, path := range paths {
		n := tr.model[path]
		fmt.Fprintf(&out, "%s %t %q %d %d\n", n.Path, n.Dir, n.Value, n.Created, n.Modified)
	}
	return out.String()
}

func (tr *tree) check(dir string, recursive bool) {
	tr.t.Helper()
	n, err := Look(tr.store, dir, recursive)
	if err != nil {
		tr.t.Fatalf("read %s: %v", dir, err)
	}
	var out strings.Builder
	var walk func(n *Node)
	walk = func(n *Node) {
		for _, child := range n.Nodes {
			fmt.Fprintf(&out, "%s %t %q %d %d\n", child.Path, child.Dir, child.Value, child.Created, child.Modified)
			walk(child)
		}
	}
	walk(n)
	if got, want := out.String(), tr.list(dir, recursive); got != want {
		tr.t.Fatalf("%s, recursive %t:\n%s\nwant:\n%s", dir, recursive, got, want)
	}
}

// If this fails, the tree that v2 clients see is not the one that they have
// written: nodes are lost, stay after their removal, or show up in other places.
func TestTreeIsAsWritten(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("KVORUM_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("replay with KVORUM_SEED=%d go test -run TestTreeIsAsWritten ./server/state/v2keys", seed)
	d := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test
	names := []string{"a", "a-b", "a.b", "ab", "_h", "z", "ä"}
	path := func() string {
		p := ""
		for range d.IntN(4) {
			p += "/" + names[d.IntN(len(names))]
		}
		return max(p, Root)
	}
	methods := []pb.V2Request_Method{
		pb.V2Request_SET, pb.V2Request_SET, pb.V2Request_CREATE, pb.V2Request_CREATE_IN_ORDER, pb.V2Request_UPDATE, pb.V2Request_DELETE, pb.V2Request_DELETE,
	}
	tr := newTree(t)
	for range 1500 {
		r := &pb.V2Request{Method: methods[d.IntN(len(methods))], Path: path(), Value: []byte{byte('0' + d.IntN(10))}, Dir: d.IntN(3) == 0, Recursive: d.IntN(3) == 0}
		if r.Dir {
			r.Value = nil
		}
		before := tr.store.Revision()
		want := tr.expect(r, before+1)
		_, err := tr.apply(r)
		var got Code
		var refused *Error
		if errors.As(err, &refused) {
			got = refused.Code
		}
		if got != want || (err != nil) != (want != 0) {
			t.Fatalf("%v gave %v, want code %d", r, err, want)
		}
		if after := tr.store.Revision(); (after != before) != (want == 0) || after > before+1 {
			t.Fatalf("%v with code %d went from revision %d to %d", r, want, before, after)
		}
		dir := Root
		if n := tr.model[r.Path]; n != nil && n.Dir {
			dir = r.Path
		}
		tr.check(dir, d.IntN(2) == 0)
	}
	tr.check(Root, true)
}

// If this fails, a directory with much below it takes as long to list as all
// that is below it.
func TestListingJumpsOverWhatIsBelow(t *testing.T) {
	tr := newTree(t)
	for i := range 2000 {
		if _, err := tr.apply(&pb.V2Request{Path: fmt.Sprintf("/big/%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tr.apply(&pb.V2Request{Path: "/zero"}); err != nil {
		t.Fatal(err)
	}
	asked := 0
	_, err := mvcc.Look(tr.store, func(p mvcc.Picture) (bool, error) {
		from, to := Below(Root)
		kvs, err := p.List(from, to, func(key string) (bool, string) {
			asked++
			return pickChild(from, key)
		})
		if len(kvs) != 2 {
			t.Errorf("%d children", len(kvs))
		}
		return true, err
	})
	if err != nil || asked > 4 {
		t.Errorf("looked at %d keys for two children (%v)", asked, err)
	}
}
