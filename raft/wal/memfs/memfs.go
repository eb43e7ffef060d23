package memfs

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/kvorum/kvorum/raft/wal"
)

// ErrCrashed is what every operation returns after [FS.StopAt] struck, and what
// files opened before a crash return for ever.
var ErrCrashed = errors.New("memfs: machine is down")

// sectorBytes is the unit in which a write can be torn.
const sectorBytes = 512

// FS is a file system in memory. It may be used from several goroutines; it is
// deterministic as long as their order is.
type FS struct {
	mu     sync.Mutex
	root   *dir
	life   int // raised by Crash; older handles are dead
	ops    int
	failAt int // number of the operation to fail; 0 none
	failed error
	stopAt int
	down   bool
}

var _ wal.FS = (*FS)(nil)

// New returns an empty file system.
func New() *FS { return &FS{root: newDir()} }

// dir is a directory: the names that programs see, those on the disk, and the
// changes between the two in order.
type dir struct {
	live    map[string]any // *dir or *inode
	durable map[string]any
	changes []change
}

// change is one atomic update of the names of a directory: nil removes.
type change map[string]any

func newDir() *dir { return &dir{live: map[string]any{}, durable: map[string]any{}} }

func (d *dir) apply(c change) {
	update(d.live, c)
	d.changes = append(d.changes, c)
}

func update(names map[string]any, c change) {
	for name, node := range c {
		if node == nil {
			delete(names, name)
		} else {
			names[name] = node
		}
	}
}

// inode is a file: the bytes that programs see, those on the disk, and the
// writes between the two.
type inode struct {
	live    content
	durable content
	pending []edit
	locked  *file
}

// content is a file's bytes; those from len(data) to size are zero.
type content struct {
	data []byte
	size int64
}

// edit is a write, or, when data is nil, a change of size.
type edit struct {
	off  int64
	data []byte
	size int64
}

func (c *content) apply(e edit) {
	if e.data == nil {
		c.size = e.size
		c.data = c.data[:min(int64(len(c.data)), e.size)]
		return
	}
	end := e.off + int64(len(e.data))
	if grow := end - int64(len(c.data)); grow > 0 {
		c.data = append(c.data, make([]byte, grow)...)
	}
	copy(c.data[e.off:], e.data)
	c.size = max(c.size, end)
}

func (c content) clone() content { return content{slices.Clone(c.data), c.size} }

// Ops is the number of operations so far.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// FailAt makes the n-th operation from now (1 is the next) return err once. A
// failed write may have written a part; a failed sync loses its bytes.
func (f *FS) FailAt(n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failAt, f.failed = f.ops+n, err
}

// StopAt takes the machine down at the n-th operation from now: that operation
// and all later ones return [ErrCrashed], until [FS.Crash]. If it is a write, it
// is still under way, so part of it may survive the crash.
func (f *FS) StopAt(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopAt = f.ops + n
}

// Crash takes the machine down and starts it again. Without a source of
// randomness everything unsynced is gone; with one, parts of it survive.
// Pending FailAt and StopAt are forgotten.
func (f *FS) Crash(rnd *rand.Rand) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.life++
	f.failAt, f.stopAt, f.down = 0, 0, false
	f.root.crash(rnd, map[any]bool{})
}

// Kill ends the process that uses the file system, and nothing else: open files
// are closed and their locks given up, and what was written and not synced
// stays, for the next process to read or for a later Crash to take. Pending
// FailAt and StopAt are forgotten.
func (f *FS) Kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.life++
	f.failAt, f.stopAt, f.down = 0, 0, false
	f.root.unlock()
}

func (d *dir) unlock() {
	for _, node := range d.live {
		switch node := node.(type) {
		case *dir:
			node.unlock()
		case *inode:
			node.locked = nil
		}
	}
}

func (d *dir) crash(rnd *rand.Rand, done map[any]bool) {
	if rnd != nil {
		for _, c := range d.changes[:rnd.IntN(len(d.changes)+1)] {
			update(d.durable, c)
		}
	}
	d.changes = nil
	d.live = make(map[string]any, len(d.durable))
	names := make([]string, 0, len(d.durable))
	for name, node := range d.durable {
		d.live[name] = node
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		node := d.live[name]
		if done[node] {
			continue
		}
		done[node] = true
		switch node := node.(type) {
		case *dir:
			node.crash(rnd, done)
		case *inode:
			node.crash(rnd)
		}
	}
}

func (n *inode) crash(rnd *rand.Rand) {
	if rnd != nil {
		now := n.durable.clone()
		for _, e := range n.pending {
			now.apply(e)
			n.survive(e, now, rnd)
		}
	}
	n.pending, n.locked = nil, nil
	n.live = n.durable.clone()
}

// survive lets all, some sectors or nothing of an edit reach the disk. A sector
// goes there whole: with what earlier edits had put in it by now.
func (n *inode) survive(e edit, now content, rnd *rand.Rand) {
	fate := rnd.IntN(3)
	if fate == 0 {
		return
	}
	if e.data == nil {
		n.durable.apply(e)
		return
	}
	end := e.off + int64(len(e.data))
	for at := e.off - e.off%sectorBytes; at < end; at += sectorBytes {
		if fate == 1 || rnd.IntN(2) == 0 {
			sector := now.data[at:min(at+sectorBytes, int64(len(now.data)))]
			n.durable.apply(edit{off: at, data: sector})
		}
	}
}

// step counts an operation and says whether it may go on.
func (f *FS) step() error {
	f.ops++
	if f.ops == f.stopAt {
		f.down = true
	}
	if f.down {
		return ErrCrashed
	}
	if f.ops == f.failAt {
		return f.failed
	}
	return nil
}

// find walks to the directory of path and returns it with the last name.
func (f *FS) find(path string) (*dir, string, error) {
	d := f.root
	parts := split(path)
	if len(parts) == 0 {
		return nil, "", fs.ErrInvalid
	}
	for _, name := range parts[:len(parts)-1] {
		next, ok := d.live[name].(*dir)
		if !ok {
			return nil, "", fs.ErrNotExist
		}
		d = next
	}
	return d, parts[len(parts)-1], nil
}

func (f *FS) findDir(path string) (*dir, error) {
	if len(split(path)) == 0 {
		return f.root, nil
	}
	parent, name, err := f.find(path)
	if err != nil {
		return nil, err
	}
	d, ok := parent.live[name].(*dir)
	if !ok {
		return nil, fs.ErrNotExist
	}
	return d, nil
}

func split(path string) []string {
	return strings.FieldsFunc(filepath.ToSlash(filepath.Clean(path)), func(r rune) bool { return r == '/' || r == '.' && path == "." })
}

func wrap(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// MkdirAll implements wal.FS.
func (f *FS) MkdirAll(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step(); err != nil {
		return wrap("mkdir", path, err)
	}
	d := f.root
	for _, name := range split(path) {
		switch next := d.live[name].(type) {
		case *dir:
			d = next
		case *inode:
			return wrap("mkdir", path, fs.ErrExist)
		default:
			made := newDir()
			d.apply(change{name: made})
			d = made
		}
	}
	return nil
}

// ReadDir implements wal.FS.
func (f *FS) ReadDir(path string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step(); err != nil {
		return nil, wrap("readdir", path, err)
	}
	d, err := f.findDir(path)
	if err != nil {
		return nil, wrap("readdir", path, err)
	}
	names := make([]string, 0, len(d.live))
	for name := range d.live {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// OpenFile implements wal.FS.
func (f *FS) OpenFile(path string, flag int, _ os.FileMode) (wal.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step(); err != nil {
		return nil, wrap("open", path, err)
	}
	d, name, err := f.find(path)
	if err != nil {
		return nil, wrap("open", path, err)
	}
	n, ok := d.live[name].(*inode)
	switch {
	case ok && flag&os.O_EXCL != 0:
		return nil, wrap("open", path, fs.ErrExist)
	case !ok && d.live[name] != nil:
		return nil, wrap("open", path, fs.ErrInvalid)
	case !ok && flag&os.O_CREATE == 0:
		return nil, wrap("open", path, fs.ErrNotExist)
	case !ok:
		n = new(inode)
		d.apply(change{name: n})
	case flag&os.O_TRUNC != 0:
		n.edit(edit{})
	}
	return &file{fs: f, node: n, path: path, life: f.life}, nil
}

// Rename implements wal.FS. Within a directory it is one change.
func (f *FS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step(); err != nil {
		return wrap("rename", from, err)
	}
	d, name, err := f.find(from)
	if err != nil || d.live[name] == nil {
		return wrap("rename", from, fs.ErrNotExist)
	}
	e, other, err := f.find(to)
	if err != nil {
		return wrap("rename", to, err)
	}
	if old, ok := e.live[other].(*dir); ok && len(old.live) > 0 {
		return wrap("rename", to, fs.ErrExist)
	}
	node := d.live[name]
	if d == e {
		d.apply(change{name: nil, other: node})
		return nil
	}
	e.apply(change{other: node})
	d.apply(change{name: nil})
	return nil
}

// Remove implements wal.FS.
func (f *FS) Remove(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step(); err != nil {
		return wrap("remove", path, err)
	}
	d, name, err := f.find(path)
	if err != nil || d.live[name] == nil {
		return wrap("remove", path, fs.ErrNotExist)
	}
	d.apply(change{name: nil})
	return nil
}

// RemoveAll implements wal.FS.
func (f *FS) RemoveAll(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step(); err != nil {
		return wrap("remove", path, err)
	}
	d, name, err := f.find(path)
	if err == nil && d.live[name] != nil {
		d.apply(change{name: nil})
	}
	return nil
}

// SyncDir implements wal.FS.
func (f *FS) SyncDir(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	stop := f.step()
	d, err := f.findDir(path)
	if err == nil {
		err = stop
	}
	if err != nil {
		return wrap("syncdir", path, err)
	}
	for _, c := range d.changes {
		update(d.durable, c)
	}
	d.changes = nil
	return nil
}

// edit changes what programs see and remembers it for the disk.
func (n *inode) edit(e edit) {
	n.live.apply(e)
	n.pending = append(n.pending, e)
}

// file is an open file.
type file struct {
	fs   *FS
	node *inode
	path string
	life int
}

// do runs one operation; stop is the failure ordered for it.
func (h *file) do(op string, act func(stop error) error) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.life != h.fs.life {
		return wrap(op, h.path, ErrCrashed)
	}
	wasDown := h.fs.down
	stop := h.fs.step()
	if wasDown {
		return wrap(op, h.path, stop)
	}
	return wrap(op, h.path, act(stop))
}

func (h *file) ReadAt(p []byte, off int64) (n int, err error) {
	err = h.do("read", func(stop error) error {
		c := h.node.live
		if stop != nil {
			return stop
		}
		if off < c.size {
			n = int(min(int64(len(p)), c.size-off))
			clear(p[:n])
			if off < int64(len(c.data)) {
				copy(p[:n], c.data[off:])
			}
		}
		return nil
	})
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (h *file) WriteAt(p []byte, off int64) (n int, err error) {
	err = h.do("write", func(stop error) error {
		n = len(p)
		if stop != nil && !h.fs.down {
			// The kernel takes a write page by page: a cut lies between sectors.
			half := off + int64(len(p)/2)
			n = int(max(0, half-half%sectorBytes-off))
		}
		h.node.edit(edit{off: off, data: append(make([]byte, 0, n), p[:n]...)})
		return stop
	})
	return n, err
}

func (h *file) Size() (size int64, err error) {
	err = h.do("stat", func(stop error) error {
		size = h.node.live.size
		return stop
	})
	return size, err
}

func (h *file) Truncate(size int64) error {
	return h.do("truncate", func(stop error) error {
		if stop == nil {
			h.node.edit(edit{size: size})
		}
		return stop
	})
}

func (h *file) Preallocate(size int64) error {
	return h.do("fallocate", func(stop error) error {
		if stop == nil && size > h.node.live.size {
			h.node.edit(edit{size: size})
		}
		return stop
	})
}

func (h *file) Sync() error     { return h.sync("fsync") }
func (h *file) SyncData() error { return h.sync("fdatasync") }

func (h *file) sync(op string) error {
	return h.do(op, func(stop error) error {
		if h.fs.down {
			return stop
		}
		if stop == nil {
			for _, e := range h.node.pending {
				h.node.durable.apply(e)
			}
		}
		h.node.pending = nil
		return stop
	})
}

func (h *file) Lock() error {
	return h.do("lock", func(stop error) error {
		if stop != nil {
			return stop
		}
		if h.node.locked != nil && h.node.locked != h {
			return wal.ErrLocked
		}
		h.node.locked = h
		return nil
	})
}

func (h *file) Close() error {
	return h.do("close", func(stop error) error {
		if h.node.locked == h {
			h.node.locked = nil
		}
		return stop
	})
}
