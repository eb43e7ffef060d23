package mvcc

// garbage lists, oldest first, the revisions at which a key got a new version
// or was deleted. Compacting to C looks only at the entries up to C, so it
// costs what it removes and not what the store holds.
type garbage struct {
	chunks []*garbageChunk
	head   int       // first entry of chunks[0]
	held   []discard // kept by a compaction because they are tombstones at its own revision
	again  []discard // held ones that the next compaction looks at again
}

const garbageChunkSize = 512

type garbageChunk struct {
	n       int
	entries [garbageChunkSize]discard
}

// discard says that the key's versions before the revision are not needed
// after it, nor the tombstone made at it.
type discard struct {
	at  Revision
	key string
}

func (g *garbage) push(at Revision, key string) {
	if n := len(g.chunks); n == 0 || g.chunks[n-1].n == garbageChunkSize {
		g.chunks = append(g.chunks, new(garbageChunk))
	}
	c := g.chunks[len(g.chunks)-1]
	c.entries[c.n] = discard{at, key}
	c.n++
}

// pop takes the oldest entry if it is at or before the revision.
func (g *garbage) pop(upTo Revision) (discard, bool) {
	if n := len(g.again); n > 0 {
		d := g.again[n-1]
		g.again = g.again[:n-1]
		return d, true
	}
	if len(g.chunks) == 0 {
		return discard{}, false
	}
	c := g.chunks[0]
	if g.head == c.n || c.entries[g.head].at > upTo {
		return discard{}, false
	}
	d := c.entries[g.head]
	c.entries[g.head] = discard{}
	g.head++
	if g.head == garbageChunkSize {
		g.chunks = g.chunks[1:]
		g.head = 0
	}
	return d, true
}

// hold keeps an entry for the next compaction.
func (g *garbage) hold(d discard) { g.held = append(g.held, d) }

// unhold begins a compaction: what the one before held comes first.
func (g *garbage) unhold() { g.again, g.held = append(g.again, g.held...), nil }
