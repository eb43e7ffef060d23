package power

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// sector is what a disk writes whole.
const sector = 512

// Loss says what of the unsynced is gone.
type Loss int

// The kinds of loss.
const (
	LoseAll  Loss = iota // everything that was not synced
	LoseSome             // some sectors, some writes, the later changes of directories
	LoseNone             // nothing: the process died, not the machine
)

// String is for test logs.
func (l Loss) String() string {
	return [...]string{"all unsynced lost", "some unsynced lost", "nothing lost"}[l]
}

// Disk is what a machine has on disk and in the kernel's memory.
type Disk struct {
	root string
	dirs map[string]*node // of the kernel, by path
	fds  map[int]*offset
	// What the syncs under way will make durable.
	covered map[*call][]*change
}

type offset struct {
	file *node
	at   int64
}

// node is a file or a directory.
type node struct {
	dir     bool
	content []byte
	size    int64
	entries map[string]*node // durable names of a directory
	changes []*change        // after the last sync, in order
}

// change of a file or a directory that is not durable yet.
type change struct {
	c     *call
	ended bool
	off   int64
	name  string // in a directory
	node  *node  // nil: the name goes
}

// NewDisk is a disk that holds what is in the folder root, all of it durable.
func NewDisk(root string) (*Disk, error) {
	d := &Disk{root: filepath.Clean(root), dirs: map[string]*node{}, fds: map[int]*offset{}, covered: map[*call][]*change{}}
	err := filepath.WalkDir(d.root, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		n := &node{dir: e.IsDir(), entries: map[string]*node{}}
		if !n.dir {
			if n.content, err = os.ReadFile(path); err != nil {
				return err
			}
			n.size = int64(len(n.content))
			n.content = slices.Clone(bytes.TrimRight(n.content, "\x00"))
		}
		d.dirs[path] = n
		if parent := d.dirs[filepath.Dir(path)]; parent != nil {
			parent.entries[filepath.Base(path)] = n
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", root, err)
	}
	return d, nil
}

// Do takes the next event of a trace.
func (d *Disk) Do(e event) error {
	c := e.call
	switch c.kind {
	case opWrite, opTruncate, opAllocate:
		return d.changeFile(e)
	case opSync:
		return d.sync(e)
	}
	if !e.end {
		return nil
	}
	switch c.kind {
	case opOpen:
		d.fds[c.fd] = &offset{file: d.dirs[c.path]}
		return nil
	case opCreate:
		return d.create(c)
	case opMkdir:
		return d.link(c.path, &node{dir: true, entries: map[string]*node{}})
	case opRename:
		return d.rename(c)
	}
	return d.link(c.path, nil)
}

func (d *Disk) create(c *call) error {
	n := d.dirs[c.path]
	if n == nil {
		n = &node{}
		if err := d.link(c.path, n); err != nil {
			return err
		}
	}
	if c.size == 0 {
		n.changes = append(n.changes, &change{c: &call{kind: opTruncate}, ended: true})
	}
	d.fds[c.fd] = &offset{file: n}
	return nil
}

// link changes a name in the kernel, and notes it in the directory.
func (d *Disk) link(path string, n *node) error {
	dir := d.dirs[filepath.Dir(path)]
	if dir == nil {
		return fmt.Errorf("%w: no directory for %s", errTrace, path)
	}
	if n == nil {
		delete(d.dirs, path)
	} else {
		d.dirs[path] = n
	}
	dir.changes = append(dir.changes, &change{name: filepath.Base(path), node: n, ended: true})
	return nil
}

func (d *Disk) rename(c *call) error {
	n := d.dirs[c.path]
	if n == nil {
		return fmt.Errorf("%w: rename of %s, which is not there", errTrace, c.path)
	}
	for path, inside := range maps.Clone(d.dirs) {
		if rest, ok := strings.CutPrefix(path, c.path+"/"); ok {
			delete(d.dirs, path)
			d.dirs[c.to+"/"+rest] = inside
		}
	}
	delete(d.dirs, c.path)
	d.dirs[c.to] = n
	from, to := d.dirs[filepath.Dir(c.path)], d.dirs[filepath.Dir(c.to)]
	if from == nil || to == nil {
		return fmt.Errorf("%w: rename of %s to %s", errTrace, c.path, c.to)
	}
	// The new name first: a crash between the two leaves both, not none. When it
	// is one directory, the two are one step.
	to.changes = append(to.changes, &change{name: filepath.Base(c.to), node: n, ended: true})
	from.changes = append(from.changes, &change{name: filepath.Base(c.path), ended: true})
	return nil
}

func (d *Disk) file(path string) (*node, error) {
	n := d.dirs[strings.TrimSuffix(path, " (deleted)")]
	if n == nil && !strings.HasSuffix(path, " (deleted)") && !strings.HasSuffix(path, "(deleted)") {
		return nil, fmt.Errorf("%w: %s is not there", errTrace, path)
	}
	return n, nil
}

func (d *Disk) changeFile(e event) error {
	c := e.call
	n, err := d.file(c.path)
	if err != nil || n == nil {
		return err
	}
	if e.end {
		for _, ch := range n.changes {
			ch.ended = ch.ended || ch.c == c
		}
		return nil
	}
	off := c.off
	if c.kind == opWrite && off < 0 {
		at := d.fds[c.fd]
		if at == nil || at.file != n {
			return fmt.Errorf("%w: write at an unknown place of %s", errTrace, c.path)
		}
		off = at.at
		at.at += int64(len(c.data))
	}
	n.changes = append(n.changes, &change{c: c, off: off})
	return nil
}

// sync makes durable what had ended when it began.
func (d *Disk) sync(e event) error {
	n, err := d.file(e.call.path)
	if err != nil || n == nil {
		return err
	}
	if !e.end {
		open := slices.IndexFunc(n.changes, func(ch *change) bool { return !ch.ended })
		if open < 0 {
			open = len(n.changes)
		}
		d.covered[e.call] = slices.Clone(n.changes[:open])
		return nil
	}
	n.changes = slices.DeleteFunc(n.changes, func(ch *change) bool {
		durable := slices.Contains(d.covered[e.call], ch)
		if durable {
			n.apply(ch)
		}
		return durable
	})
	delete(d.covered, e.call)
	return nil
}

// apply makes a change durable.
func (n *node) apply(ch *change) {
	if n.dir {
		if ch.node == nil {
			delete(n.entries, ch.name)
		} else {
			n.entries[ch.name] = ch.node
		}
		return
	}
	n.content, n.size = applied(n.content, n.size, ch)
}

func applied(content []byte, size int64, ch *change) ([]byte, int64) {
	switch ch.c.kind {
	case opTruncate:
		if int64(len(content)) > ch.c.size {
			content = content[:ch.c.size]
		}
		size = ch.c.size
	case opAllocate:
		size = max(size, ch.c.size)
	case opWrite:
		end := ch.off + int64(len(ch.c.data))
		if grow := end - int64(len(content)); grow > 0 {
			content = append(content, make([]byte, grow)...)
		}
		copy(content[ch.off:], ch.c.data)
		size = max(size, end)
	}
	return content, size
}

// Image writes what a crash now leaves into the folder dir.
func (d *Disk) Image(dir string, loss Loss, r *rand.Rand) error {
	return d.dirs[d.root].image(dir, loss, r)
}

func (n *node) image(path string, loss Loss, r *rand.Rand) error {
	if !n.dir {
		return n.imageFile(path, loss, r)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	after := node{dir: true, entries: maps.Clone(n.entries)}
	for _, ch := range n.changes[:n.survivors(loss, r)] {
		after.apply(ch)
	}
	for _, name := range slices.Sorted(maps.Keys(after.entries)) {
		if err := after.entries[name].image(filepath.Join(path, name), loss, r); err != nil {
			return err
		}
	}
	return nil
}

// survivors is how many changes of a directory are on disk: they go there in
// their order.
func (n *node) survivors(loss Loss, r *rand.Rand) int {
	switch loss {
	case LoseNone:
		return len(n.changes)
	case LoseSome:
		return r.IntN(len(n.changes) + 1)
	}
	return 0
}

func (n *node) imageFile(path string, loss Loss, r *rand.Rand) error {
	content, size := slices.Clone(n.content), n.size
	for _, ch := range n.survived(loss, r) {
		content, size = applied(content, size, ch)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(content[:min(int64(len(content)), size)]); err == nil {
		err = f.Truncate(size)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// survived are the changes of a file that are on disk. The kernel writes whole
// pages as they are at the time, in any order: so a sector has all changes up to
// some moment, each its own. What the file system says of the file, its size, has
// a moment of its own too.
func (n *node) survived(loss Loss, r *rand.Rand) []*change {
	switch loss {
	case LoseAll:
		return nil
	case LoseNone:
		return n.changes
	}
	total := map[int64]int{} // changes by sector; -1: of the size
	for _, ch := range n.changes {
		for _, part := range sectors(ch) {
			total[part.sector()]++
		}
	}
	left := map[int64]int{}
	for _, s := range slices.Sorted(maps.Keys(total)) {
		left[s] = r.IntN(total[s] + 1)
	}
	var kept []*change
	for _, ch := range n.changes {
		for _, part := range sectors(ch) {
			if s := part.sector(); left[s] > 0 {
				left[s]--
				kept = append(kept, part)
			}
		}
	}
	return kept
}

func (ch *change) sector() int64 {
	if ch.c.kind != opWrite {
		return -1
	}
	return ch.off / sector
}

// sectors cuts a write where sectors end.
func sectors(ch *change) []*change {
	if ch.c.kind != opWrite {
		return []*change{ch}
	}
	var parts []*change
	end := ch.off + int64(len(ch.c.data))
	for from := ch.off; from < end; {
		to := min((from/sector+1)*sector, end)
		c := *ch.c
		c.data = c.data[from-ch.off : to-ch.off]
		parts = append(parts, &change{c: &c, off: from})
		from = to
	}
	return parts
}
