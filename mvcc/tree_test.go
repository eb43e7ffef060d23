package mvcc

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

// checkTree walks the tree and checks its shape and counts.
func checkTree(t *tree) error {
	if t.root == nil {
		if t.keys != 0 {
			return fmt.Errorf("empty tree says %d keys", t.keys)
		}
		return nil
	}
	depth := -1
	keys, err := checkNode(t.root, "", "", 0, &depth)
	if err == nil && keys != t.keys {
		err = fmt.Errorf("tree says %d keys, has %d", t.keys, keys)
	}
	return err
}

func checkNode(n node, from, to string, level int, depth *int) (keys int, err error) {
	switch x := n.(type) {
	case *leaf:
		if *depth < 0 {
			*depth = level
		}
		if *depth != level {
			return 0, fmt.Errorf("leaves at levels %d and %d", *depth, level)
		}
		live := 0
		for i, it := range x.items[:x.n] {
			if it.key < from || to != "" && it.key >= to || i > 0 && it.key <= x.items[i-1].key {
				return 0, fmt.Errorf("key %q out of place in [%q, %q)", it.key, from, to)
			}
			if it.live() {
				live++
			}
		}
		if live != x.liveKeys() {
			return 0, fmt.Errorf("leaf says %d live keys, has %d", x.liveKeys(), live)
		}
		return int(x.n), nil
	case *inner:
		live := 0
		for i, kid := range x.kids[:x.n] {
			lo, hi := from, to
			if i > 0 {
				lo = x.seps[i]
			}
			if i+1 < int(x.n) {
				hi = x.seps[i+1]
			}
			if x.live[i] != kid.liveKeys() || kid.size() == 0 {
				return 0, fmt.Errorf("child %d of size %d says %d live keys, parent %d", i, kid.size(), kid.liveKeys(), x.live[i])
			}
			live += x.live[i]
			n, err := checkNode(kid, lo, hi, level+1, depth)
			if err != nil {
				return 0, err
			}
			keys += n
		}
		if live != x.total {
			return 0, fmt.Errorf("inner node says %d live keys, has %d", x.total, live)
		}
	}
	return keys, nil
}

func itemOf(key string, tomb bool, main Revision) *item {
	return &item{key: key, at: stamp{main: main, tomb: tomb}}
}

// TestTree: if it fails, a list leaves a key out, or counts wrong.
func TestTree(t *testing.T) {
	r := rand.New(rand.NewPCG(seedOf(t), 2))
	for _, space := range []int{10, 300, 20_000} {
		var tr tree
		model := map[string]*item{}
		for step := range 20_000 {
			key := fmt.Sprintf("%06d", r.IntN(space))
			if space == 20_000 && r.IntN(2) == 0 {
				key = fmt.Sprintf("%06d", step) // in order
			}
			grow := (step/4000)%2 == 0
			if n := r.IntN(10); n < 3 && grow || n < 8 && !grow {
				tr.remove(key)
				delete(model, key)
			} else {
				it := itemOf(key, r.IntN(4) == 0, Revision(step))
				tr.set(it)
				model[key] = it
			}
			if r.IntN(100) == 0 {
				tr.freeze()
			}
			if step%1000 == 999 {
				compareTree(t, &tr, model, r)
			}
		}
	}
}

func compareTree(t *testing.T, tr *tree, model map[string]*item, r *rand.Rand) {
	t.Helper()
	if err := checkTree(tr); err != nil {
		t.Fatal(err)
	}
	var all []*item
	for _, it := range model {
		all = append(all, it)
	}
	sortItems(all)
	built := buildTree(all)
	if err := checkTree(&built); err != nil {
		t.Fatal("built in bulk:", err)
	}
	for range 50 {
		sp := span{from: fmt.Sprintf("%06d", r.IntN(20_000)), to: fmt.Sprintf("%06d", r.IntN(20_000)), open: r.IntN(5) == 0}
		for _, liveOnly := range []bool{true, false} {
			var want []*item
			for _, it := range all {
				if it.key >= sp.from && (sp.open || it.key < sp.to) && (!liveOnly || it.live()) {
					want = append(want, it)
				}
			}
			for _, x := range []*tree{tr, &built} {
				var got []*item
				x.ascend(sp, liveOnly, func(it *item) bool { got = append(got, it); return true })
				if !slices.Equal(got, want) {
					t.Fatalf("span %+v live %v: %d items, want %d", sp, liveOnly, len(got), len(want))
				}
				if liveOnly && x.count(sp) != len(want) {
					t.Fatalf("span %+v: count %d, want %d", sp, x.count(sp), len(want))
				}
				if liveOnly && len(want) > 0 {
					i := r.IntN(len(want))
					if it := x.nth(x.rank(sp.from) + i); it != want[i] {
						t.Fatalf("span %+v: item %d is %q, want %q", sp, i, it.key, want[i].key)
					}
				}
			}
		}
		if got := tr.get(sp.from); got != model[sp.from] {
			t.Fatalf("get %q: %v", sp.from, got)
		}
	}
}

// TestTreeFrozen: if it fails, a reader sees keys of a revision that is newer
// than the one it reads.
func TestTreeFrozen(t *testing.T) {
	r := rand.New(rand.NewPCG(seedOf(t), 3))
	var tr tree
	var wg sync.WaitGroup
	for batch := range Revision(200) {
		for range 50 {
			key := fmt.Sprintf("%04d", r.IntN(3000))
			if r.IntN(4) == 0 {
				tr.remove(key)
			} else {
				tr.set(itemOf(key, r.IntN(5) == 0, batch))
			}
		}
		tr.freeze()
		frozen := tr
		wg.Go(func() {
			if err := checkTree(&frozen); err != nil {
				t.Error(err)
			}
			frozen.ascend(span{open: true}, false, func(it *item) bool {
				if it.at.main > batch {
					t.Errorf("picture %d has an item of %d", batch, it.at.main)
				}
				return true
			})
		})
	}
	wg.Wait()
}

// If this fails, a restarted store finds some keys and not others: the index is built from items in the wrong order.
func TestSortItems(t *testing.T) {
	r := rand.New(rand.NewPCG(seedOf(t), 1))
	for range 200 {
		prefix := strings.Repeat("p", r.IntN(10))
		var items []*item
		var want []string
		for range r.IntN(100) {
			key := prefix
			for range 1 + r.IntN(12) {
				key += string([]byte{0, 'a', 'b', 255}[r.IntN(4)])
			}
			items, want = append(items, &item{key: key}), append(want, key)
		}
		sortItems(items)
		slices.Sort(want)
		for i, it := range items {
			if it.key != want[i] {
				t.Fatalf("place %d has %q, want %q", i, it.key, want[i])
			}
		}
	}
}
