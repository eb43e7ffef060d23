package mvcc

import (
	"fmt"
	"slices"
	"testing"
)

// A watcher that the index does not find never hears of its key.
func TestWatchIndexFindsWhatAPlainScanFinds(t *testing.T) {
	r := watchRand(t)
	var index watchIndex
	var all []*watcher
	text := func() string {
		b := make([]byte, 1+r.Intn(3))
		for i := range b {
			b[i] = "\x00ab\xff"[r.Intn(4)]
		}
		return string(b)
	}
	for step := range 4000 {
		switch {
		case len(all) == 0 || r.Intn(5) < 2 && len(all) < 100:
			w := &watcher{id: int64(step), key: text()}
			switch r.Intn(4) {
			case 0:
				w.end = watchEndless
			case 1, 2:
				if w.end = text(); w.end <= w.key {
					w.end = w.key + "\x00"
				}
			}
			index.add(w)
			all = append(all, w)
		case r.Intn(3) == 0:
			i := r.Intn(len(all))
			index.remove(all[i])
			all = slices.Delete(all, i, i+1)
		}
		if index.size != len(all) {
			t.Fatalf("step %d: size %d, want %d", step, index.size, len(all))
		}
		checkWatchRange(t, index.ranges)
		compareWatchMatch(t, &index, all, text())
	}
	for _, w := range all {
		index.remove(w)
	}
	if len(index.keys) != 0 || index.ranges != nil {
		t.Fatalf("the empty index holds %d keys and ranges %v", len(index.keys), index.ranges)
	}
}

func compareWatchMatch(t *testing.T, index *watchIndex, all []*watcher, key string) {
	t.Helper()
	var got, want []int64
	for _, group := range index.match([]byte(key), nil) {
		for _, w := range group.watchers {
			got = append(got, w.id)
		}
	}
	for _, w := range all {
		if watchCovers(w.key, w.end, []byte(key)) {
			want = append(want, w.id)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("watchers of %q: %v, want %v", key, got, want)
	}
}

// checkWatchRange asserts the invariant of the tree and returns its height.
func checkWatchRange(t *testing.T, r *watchRange) int {
	t.Helper()
	if r == nil {
		return 0
	}
	left, right := checkWatchRange(t, r.left), checkWatchRange(t, r.right)
	reach := r.end
	for _, child := range []*watchRange{r.left, r.right} {
		if child != nil {
			reach = watchEndMax(reach, child.reach)
		}
	}
	if r.height != 1+max(left, right) || left-right > 1 || right-left > 1 || r.reach != reach || len(r.watchers) == 0 {
		t.Fatalf("node [%q, %q): height %d over %d and %d, reach %q, want %q", r.key, r.end, r.height, left, right, r.reach, reach)
	}
	if r.left != nil && !r.left.before(r.key, r.end) || r.right != nil && r.right.before(r.key, r.end) {
		t.Fatalf("node [%q, %q) out of order", r.key, r.end)
	}
	return r.height
}

func BenchmarkWatchIndexMatch(b *testing.B) {
	for _, shape := range []string{"keys", "prefixes", "nested"} {
		b.Run(shape, func(b *testing.B) {
			var index watchIndex
			for i := range 10000 {
				w := &watcher{key: fmt.Sprintf("/registry/%05d/", i)}
				switch shape {
				case "prefixes":
					w.end = fmt.Sprintf("/registry/%05d0", i)
				case "nested":
					w.end = "/registry/99999"
					if i > 0 {
						w.end = fmt.Sprintf("/registry/%05d0", i)
					}
				}
				index.add(w)
			}
			key := []byte("/registry/05000/")
			var groups []*watchGroup
			b.ReportAllocs()
			for b.Loop() {
				groups = index.match(key, groups[:0])
			}
			if len(groups) == 0 {
				b.Fatal("nothing found")
			}
		})
	}
}
