package mvcc

// watchEndless as the end of a range means that the range has no end, as on
// the wire. No key sorts below it, so it is never the end of another range.
const watchEndless = "\x00"

// watchIndex finds the watchers of a key: those of exactly that key in a map,
// those of ranges in a balanced tree that knows for each subtree how far its
// ranges reach. A look-up costs O(log ranges) for each range that it finds.
//
// Watchers of the same key or range share one group, so ten thousand
// watchers of one prefix are one node.
type watchIndex struct {
	keys   map[string]*watchGroup
	ranges *watchRange
	size   int // watchers
}

// watchGroup is the watchers of one key or range.
type watchGroup struct {
	watchers []*watcher
}

// watchRange is a node of the tree, ordered by (key, end).
//
// Invariant: reach is the furthest end in the subtree; the heights of the
// children differ by at most one.
type watchRange struct {
	watchGroup
	key, end    string
	reach       string
	left, right *watchRange
	height      int
}

// add puts w in; w must be in no index.
func (x *watchIndex) add(w *watcher) {
	group := x.group(w.key, w.end)
	w.group, w.slot = group, len(group.watchers)
	group.watchers = append(group.watchers, w)
	x.size++
}

func (x *watchIndex) group(key, end string) *watchGroup {
	if end == "" {
		group := x.keys[key]
		if group == nil {
			if x.keys == nil {
				x.keys = make(map[string]*watchGroup)
			}
			group = &watchGroup{}
			x.keys[key] = group
		}
		return group
	}
	r := x.ranges.find(key, end)
	if r == nil {
		r = &watchRange{key: key, end: end, reach: end, height: 1}
		x.ranges = x.ranges.insert(r)
	}
	return &r.watchGroup
}

// remove takes w out; w must be in this index.
func (x *watchIndex) remove(w *watcher) {
	group, last := w.group, len(w.group.watchers)-1
	group.watchers[last].slot = w.slot
	group.watchers[w.slot] = group.watchers[last]
	group.watchers[last] = nil
	group.watchers = group.watchers[:last]
	w.group = nil
	x.size--
	switch {
	case last > 0:
	case w.end == "":
		delete(x.keys, w.key)
	default:
		x.ranges = x.ranges.remove(w.key, w.end)
	}
}

// match appends the groups of all watchers of key to found.
func (x *watchIndex) match(key []byte, found []*watchGroup) []*watchGroup {
	if group := x.keys[string(key)]; group != nil {
		found = append(found, group)
	}
	return x.ranges.match(key, found)
}

func (r *watchRange) match(key []byte, found []*watchGroup) []*watchGroup {
	for r != nil && watchEndAfter(r.reach, key) {
		found = r.left.match(key, found)
		if string(key) < r.key {
			break
		}
		if watchEndAfter(r.end, key) {
			found = append(found, &r.watchGroup)
		}
		r = r.right
	}
	return found
}

// watchEndAfter says whether key lies before the end.
func watchEndAfter(end string, key []byte) bool {
	return end == watchEndless || string(key) < end
}

func watchEndMax(a, b string) string {
	if a == watchEndless || b == watchEndless {
		return watchEndless
	}
	return max(a, b)
}

// before orders the nodes of the tree.
func (r *watchRange) before(key, end string) bool {
	return r.key < key || r.key == key && r.end < end
}

func (r *watchRange) find(key, end string) *watchRange {
	for r != nil && (r.key != key || r.end != end) {
		if r.before(key, end) {
			r = r.right
		} else {
			r = r.left
		}
	}
	return r
}

// insert returns the tree with the new node n in it.
func (r *watchRange) insert(n *watchRange) *watchRange {
	if r == nil {
		return n
	}
	if r.before(n.key, n.end) {
		r.right = r.right.insert(n)
	} else {
		r.left = r.left.insert(n)
	}
	return r.balance()
}

// remove returns the tree without the node of (key, end). Nodes are relinked
// and never copied, because watchers point to their group.
func (r *watchRange) remove(key, end string) *watchRange {
	if r.key == key && r.end == end {
		if r.left == nil {
			return r.right
		}
		if r.right == nil {
			return r.left
		}
		first, rest := r.right.removeFirst()
		first.left, first.right = r.left, rest
		return first.balance()
	}
	if r.before(key, end) {
		r.right = r.right.remove(key, end)
	} else {
		r.left = r.left.remove(key, end)
	}
	return r.balance()
}

func (r *watchRange) removeFirst() (first, rest *watchRange) {
	if r.left == nil {
		return r, r.right
	}
	first, r.left = r.left.removeFirst()
	return first, r.balance()
}

// balance restores the invariant of r, whose children hold it and differ in
// height by at most two, and returns the new root.
func (r *watchRange) balance() *watchRange {
	switch tilt := r.left.tall() - r.right.tall(); {
	case tilt > 1:
		if r.left.left.tall() < r.left.right.tall() {
			r.left = r.left.rotateLeft()
		}
		return r.rotateRight()
	case tilt < -1:
		if r.right.right.tall() < r.right.left.tall() {
			r.right = r.right.rotateRight()
		}
		return r.rotateLeft()
	}
	r.sum()
	return r
}

func (r *watchRange) rotateLeft() *watchRange {
	up := r.right
	r.right, up.left = up.left, r
	r.sum()
	up.sum()
	return up
}

func (r *watchRange) rotateRight() *watchRange {
	up := r.left
	r.left, up.right = up.right, r
	r.sum()
	up.sum()
	return up
}

func (r *watchRange) tall() int {
	if r == nil {
		return 0
	}
	return r.height
}

// sum computes height and reach from the children.
func (r *watchRange) sum() {
	r.height = 1 + max(r.left.tall(), r.right.tall())
	r.reach = r.end
	if r.left != nil {
		r.reach = watchEndMax(r.reach, r.left.reach)
	}
	if r.right != nil {
		r.reach = watchEndMax(r.reach, r.right.reach)
	}
}
