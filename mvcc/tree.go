package mvcc

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// A tree is a B+tree from keys to items that counts the live keys below each
// child, so that the keys of a range are counted, and the n-th found, in
// O(log n).
//
// It is copy-on-write: a node belongs to the epoch that made it, and is changed
// in place only while the tree is still in that epoch. Copying the tree value
// and then calling freeze gives a picture that no later change touches; a batch
// of changes between two freezes copies each node once.
//
//	inner: seps[i] ≤ every key of kids[i] < seps[i+1]   (seps[0] is not looked at)
//	leaf:  items in key order
type tree struct {
	root  node // nil when empty
	epoch uint64
	keys  int // items, the deleted ones too
}

const (
	leafMax  = 64
	innerMax = 32
)

// node is *leaf or *inner.
type node interface {
	liveKeys() int
	size() int
}

type leaf struct {
	epoch uint64
	n     int32
	live  int32
	items [leafMax]*item
}

type inner struct {
	epoch uint64
	n     int32
	total int // sum of live
	seps  [innerMax]string
	live  [innerMax]int
	kids  [innerMax]node
}

func (l *leaf) liveKeys() int   { return int(l.live) }
func (l *leaf) size() int       { return int(l.n) }
func (in *inner) liveKeys() int { return in.total }
func (in *inner) size() int     { return int(in.n) }

// search returns where the key is or belongs.
func (l *leaf) search(key string) (i int, found bool) {
	lo, hi := 0, int(l.n)
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if l.items[m].key < key {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo, lo < int(l.n) && l.items[lo].key == key
}

// child returns the place of the child that has or would have the key.
func (in *inner) child(key string) int {
	lo, hi := 1, int(in.n)
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if in.seps[m] <= key {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo - 1
}

// freeze ends the epoch: nodes reachable now are never changed again.
func (t *tree) freeze() { t.epoch++ }

// live returns how many keys exist.
func (t *tree) live() int {
	if t.root == nil {
		return 0
	}
	return t.root.liveKeys()
}

// get returns the item of the key or nil.
func (t *tree) get(key string) *item {
	n := t.root
	for {
		switch x := n.(type) {
		case *inner:
			n = x.kids[x.child(key)]
		case *leaf:
			if i, ok := x.search(key); ok {
				return x.items[i]
			}
			return nil
		default:
			return nil
		}
	}
}

// set inserts the item or replaces the one of the same key.
func (t *tree) set(it *item) {
	if t.root == nil {
		t.root = &leaf{epoch: t.epoch}
	}
	root, right, sep := t.insert(t.root, it)
	if right != nil {
		top := &inner{epoch: t.epoch, n: 2, total: root.liveKeys() + right.liveKeys()}
		top.kids[0], top.live[0] = root, root.liveKeys()
		top.kids[1], top.live[1], top.seps[1] = right, right.liveKeys(), sep
		root = top
	}
	t.root = root
}

// insert puts the item below n. It returns the node that takes n's place and,
// if that had to be split, its new right neighbour and the separator.
func (t *tree) insert(n node, it *item) (self, right node, sep string) {
	switch x := n.(type) {
	case *leaf:
		return t.insertLeaf(t.ownLeaf(x), it)
	case *inner:
		in := t.ownInner(x)
		i := in.child(it.key)
		kid, split, splitSep := t.insert(in.kids[i], it)
		in.setKid(i, kid)
		if split == nil {
			return in, nil, ""
		}
		return t.insertKid(in, i+1, split, splitSep)
	}
	panic("unreachable")
}

func (t *tree) insertLeaf(l *leaf, it *item) (self, right node, sep string) {
	i, found := l.search(it.key)
	if found {
		l.live += liveDelta(l.items[i], it)
		l.items[i] = it
		return l, nil, ""
	}
	t.keys++
	if l.n < leafMax {
		l.insertAt(i, it)
		return l, nil, ""
	}
	r := &leaf{epoch: t.epoch}
	at := leafMax / 2
	if i == leafMax { // keys that come in order leave full leaves behind
		at = leafMax
	}
	for _, moved := range l.items[at:] {
		r.insertAt(int(r.n), moved)
	}
	clear(l.items[at:])
	l.n = int32(at)
	l.live -= r.live
	if i <= at && at < leafMax {
		l.insertAt(i, it)
	} else {
		r.insertAt(i-at, it)
	}
	return l, r, r.items[0].key
}

// liveDelta is by how much the live keys grow when the item replaces old.
func liveDelta(old, it *item) int32 {
	d := int32(0)
	if old != nil && old.live() {
		d--
	}
	if it != nil && it.live() {
		d++
	}
	return d
}

func (l *leaf) insertAt(i int, it *item) {
	copy(l.items[i+1:l.n+1], l.items[i:l.n])
	l.items[i] = it
	l.n++
	l.live += liveDelta(nil, it)
}

func (l *leaf) removeAt(i int) {
	l.live -= liveDelta(nil, l.items[i])
	copy(l.items[i:], l.items[i+1:l.n])
	l.n--
	l.items[l.n] = nil
}

// insertKid puts a child at place i.
func (t *tree) insertKid(in *inner, i int, kid node, sep string) (self, right node, upSep string) {
	if in.n < innerMax {
		in.insertAt(i, kid, sep)
		return in, nil, ""
	}
	at := innerMax / 2
	if i == innerMax {
		at = innerMax - 1
	}
	r := &inner{epoch: t.epoch}
	for j := at; j < innerMax; j++ {
		r.insertAt(int(r.n), in.kids[j], in.seps[j])
	}
	in.truncate(at)
	if i <= at {
		in.insertAt(i, kid, sep)
	} else {
		r.insertAt(i-at, kid, sep)
	}
	return in, r, r.seps[0]
}

func (in *inner) insertAt(i int, kid node, sep string) {
	n := in.n
	copy(in.kids[i+1:n+1], in.kids[i:n])
	copy(in.seps[i+1:n+1], in.seps[i:n])
	copy(in.live[i+1:n+1], in.live[i:n])
	in.kids[i], in.seps[i], in.live[i] = kid, sep, kid.liveKeys()
	in.n++
	in.total += in.live[i]
}

func (in *inner) removeAt(i int) {
	n := in.n
	in.total -= in.live[i]
	copy(in.kids[i:], in.kids[i+1:n])
	copy(in.seps[i:], in.seps[i+1:n])
	copy(in.live[i:], in.live[i+1:n])
	in.n--
	in.kids[n-1], in.seps[n-1], in.live[n-1] = nil, "", 0
}

func (in *inner) truncate(n int) {
	for i := n; i < int(in.n); i++ {
		in.total -= in.live[i]
		in.kids[i], in.seps[i], in.live[i] = nil, "", 0
	}
	in.n = int32(n)
}

func (in *inner) setKid(i int, kid node) {
	live := kid.liveKeys()
	in.total += live - in.live[i]
	in.kids[i], in.live[i] = kid, live
}

func (t *tree) ownLeaf(l *leaf) *leaf {
	if l.epoch == t.epoch {
		return l
	}
	c := *l
	c.epoch = t.epoch
	return &c
}

func (t *tree) ownInner(in *inner) *inner {
	if in.epoch == t.epoch {
		return in
	}
	c := *in
	c.epoch = t.epoch
	return &c
}

// remove takes the key out of the tree.
func (t *tree) remove(key string) {
	if t.get(key) == nil {
		return
	}
	t.keys--
	t.root = t.removeBelow(t.root, key)
	for {
		in, ok := t.root.(*inner)
		if !ok || in.n > 1 {
			break
		}
		t.root = in.kids[0]
	}
	if t.root.size() == 0 {
		t.root = nil
	}
}

func (t *tree) removeBelow(n node, key string) node {
	switch x := n.(type) {
	case *leaf:
		l := t.ownLeaf(x)
		i, _ := l.search(key)
		l.removeAt(i)
		return l
	case *inner:
		in := t.ownInner(x)
		i := in.child(key)
		in.setKid(i, t.removeBelow(in.kids[i], key))
		t.balance(in, i)
		return in
	}
	panic("unreachable")
}

// balance merges child i with a neighbour when it has become small and both
// fit well into one node.
func (t *tree) balance(in *inner, i int) {
	size := in.kids[i].size()
	most := leafMax
	if _, ok := in.kids[i].(*inner); ok {
		most = innerMax
	}
	if size >= most/4 {
		return
	}
	var left int
	switch {
	case i > 0 && in.kids[i-1].size()+size <= most*3/4:
		left = i - 1
	case i+1 < int(in.n) && in.kids[i+1].size()+size <= most*3/4:
		left = i
	case size == 0 && in.n > 1:
		in.removeAt(i)
		return
	default:
		return
	}
	t.merge(in, left)
}

// merge moves all of child i+1 into child i.
func (t *tree) merge(in *inner, i int) {
	sep := in.seps[i+1]
	switch right := in.kids[i+1].(type) {
	case *leaf:
		l := t.ownLeaf(in.kids[i].(*leaf))
		for _, it := range right.items[:right.n] {
			l.insertAt(int(l.n), it)
		}
		in.removeAt(i + 1)
		in.setKid(i, l)
	case *inner:
		l := t.ownInner(in.kids[i].(*inner))
		for j := range int(right.n) {
			s := right.seps[j]
			if j == 0 {
				s = sep
			}
			l.insertAt(int(l.n), right.kids[j], s)
		}
		in.removeAt(i + 1)
		in.setKid(i, l)
	}
}

// span is a range of keys: from ≤ key, and key < to unless open.
type span struct {
	from, to string
	open     bool // no upper end
}

// spanOf reads a key and range_end as requests give them; single is set when
// they name one key. The span aliases the bytes.
func spanOf(key, end []byte) (sp span, single bool) {
	sp.from = stringOf(key)
	switch {
	case len(end) == 0:
		return sp, true
	case len(end) == 1 && end[0] == 0:
		sp.open = true
	default:
		sp.to = stringOf(end)
	}
	return sp, false
}

// rank returns how many live keys are below the key.
func (t *tree) rank(key string) int {
	below := 0
	n := t.root
	for {
		switch x := n.(type) {
		case *inner:
			c := x.child(key)
			for _, live := range x.live[:c] {
				below += live
			}
			n = x.kids[c]
		case *leaf:
			i, _ := x.search(key)
			for _, it := range x.items[:i] {
				if it.live() {
					below++
				}
			}
			return below
		default:
			return 0
		}
	}
}

// count returns how many live keys the span has.
func (t *tree) count(sp span) int {
	if sp.open {
		return t.live() - t.rank(sp.from)
	}
	if sp.to <= sp.from {
		return 0
	}
	return t.rank(sp.to) - t.rank(sp.from)
}

// nth returns the live item with n live items below it, or nil.
func (t *tree) nth(n int) *item {
	if n < 0 || n >= t.live() {
		return nil
	}
	at := t.root
	for {
		switch x := at.(type) {
		case *inner:
			i := 0
			for n >= x.live[i] {
				n -= x.live[i]
				i++
			}
			at = x.kids[i]
		case *leaf:
			for _, it := range x.items[:x.n] {
				if !it.live() {
					continue
				}
				if n == 0 {
					return it
				}
				n--
			}
		}
	}
}

// ascend visits the items of the span in order until visit returns false.
// liveOnly leaves deleted keys out, and whole subtrees of them unvisited.
func (t *tree) ascend(sp span, liveOnly bool, visit func(*item) bool) {
	if t.root != nil && (sp.open || sp.from < sp.to) {
		ascend(t.root, sp, liveOnly, visit)
	}
}

func ascend(n node, sp span, liveOnly bool, visit func(*item) bool) bool {
	switch x := n.(type) {
	case *leaf:
		i, _ := x.search(sp.from)
		for _, it := range x.items[i:x.n] {
			if !sp.open && it.key >= sp.to {
				return false
			}
			if (!liveOnly || it.live()) && !visit(it) {
				return false
			}
		}
	case *inner:
		for i := x.child(sp.from); i < int(x.n); i++ {
			if i > 0 && !sp.open && x.seps[i] >= sp.to {
				return false
			}
			if liveOnly && x.live[i] == 0 {
				continue
			}
			if !ascend(x.kids[i], sp, liveOnly, visit) {
				return false
			}
		}
	}
	return true
}

// buildTree returns the tree of all items, which must be sorted by key, with
// nodes filled to seven eighths, so that the first inserts need no splits.
func buildTree(items []*item) tree {
	t := tree{keys: len(items)}
	if len(items) == 0 {
		return t
	}
	var level []node
	var seps []string
	for part := range chunks(len(items), leafMax*7/8) {
		l := &leaf{}
		for _, it := range items[part.from:part.to] {
			l.insertAt(int(l.n), it)
		}
		level, seps = append(level, l), append(seps, l.items[0].key)
	}
	for len(level) > 1 {
		var up []node
		var upSeps []string
		for part := range chunks(len(level), innerMax*7/8) {
			in := &inner{}
			for i := part.from; i < part.to; i++ {
				in.insertAt(int(in.n), level[i], seps[i])
			}
			up, upSeps = append(up, in), append(upSeps, seps[part.from])
		}
		level, seps = up, upSeps
	}
	t.root = level[0]
	return t
}

type part struct{ from, to int }

// chunks cuts n things into equal parts of at most size.
func chunks(n, size int) func(yield func(part) bool) {
	return func(yield func(part) bool) {
		parts := (n + size - 1) / size
		for i := range parts {
			if !yield(part{i * n / parts, (i + 1) * n / parts}) {
				return
			}
		}
	}
}

// sortItems sorts by key. Most comparisons are of the eight bytes behind what all
// keys begin with, side by side in memory: following a million pointers to the
// keys takes several times as long.
func sortItems(items []*item) {
	type placed struct {
		word uint64
		it   *item
	}
	common := commonPrefix(items)
	all := make([]placed, len(items))
	for i, it := range items {
		var word [8]byte
		copy(word[:], it.key[common:])
		all[i] = placed{binary.BigEndian.Uint64(word[:]), it}
	}
	slices.SortFunc(all, func(a, b placed) int {
		if c := cmp.Compare(a.word, b.word); c != 0 {
			return c
		}
		return strings.Compare(a.it.key, b.it.key)
	})
	for i, p := range all {
		items[i] = p.it
	}
}

// commonPrefix is how many bytes all keys begin with.
func commonPrefix(items []*item) int {
	if len(items) == 0 {
		return 0
	}
	first := items[0].key
	n := len(first)
	for _, it := range items {
		n = min(n, len(it.key))
		for it.key[:n] != first[:n] {
			n--
		}
	}
	return n
}
