package mvcc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"runtime/debug"
	"syscall"
)

// Before a file of unknown health is handed to bbolt, which trusts its pages and
// dies of some damages, checkPages walks them:
//
//	page:   id u64, flags u16, count u16, overflow u32, elements, data
//	branch: pos u32, ksize u32, child u64
//	leaf:   flags u32, pos u32, ksize u32, vsize u32   (pos from the element)
//	meta:   magic, version, pageSize, flags u32; root, sequence, freelist,
//	        pages, txid, checksum u64
//
// Numbers are little endian here, as on every machine that the store runs on.
const (
	pageHeaderSize  = 16
	pageElementSize = 16
	pageBranch      = 1
	pageLeaf        = 2
	elementBucket   = 1
	boltMagic       = 0xED0CDAED
	boltVersion     = 2
	metaSize        = 64
	pageDepthMax    = 64
)

// pageWalk checks the pages that can be reached.
type pageWalk struct {
	file     io.ReaderAt
	pageSize uint64
	pages    uint64   // in use: ids are below
	seen     []uint64 // one bit for each page
}

// pageError is a damaged page with its place in the file. It wraps ErrCorrupt.
type pageError struct {
	id     uint64
	offset int64
	what   string
}

func (e *pageError) Error() string {
	return fmt.Sprintf("%v: page %d: %s", ErrCorrupt, e.id, e.what)
}

func (*pageError) Unwrap() error { return ErrCorrupt }

func (w *pageWalk) bad(id uint64, what string) error {
	return &pageError{id, int64(id * w.pageSize), what}
}

// checkPages returns what makes the file unreadable, or nil.
func checkPages(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("stat database: %w", err)
	}
	w, root, err := readBoltMeta(f, info.Size())
	if err != nil {
		return err
	}
	if w.pages > uint64(info.Size())/w.pageSize {
		return fmt.Errorf("%w: file has %d bytes, but %d pages of %d", ErrCorrupt, info.Size(), w.pages, w.pageSize)
	}
	w.seen = make([]uint64, w.pages/64+1)
	return w.tree(root, nil, nil, 0)
}

// checkUnused is checkPages for a file that is about to be opened for writing. One
// that is not there, is empty, or that another process has open is left to bbolt,
// which makes it or waits for it.
func checkUnused(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() // gives the lock back
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != nil {
		return nil //nolint:nilerr // somebody has it open
	}
	return checkPages(path)
}

// readBoltMeta returns the newer valid one of the two meta pages.
func readBoltMeta(f io.ReaderAt, size int64) (w *pageWalk, root uint64, err error) {
	var newest uint64
	first := make([]byte, pageHeaderSize+metaSize)
	for _, at := range []int64{0, 4096, 8192, 16384, 32768, 65536} {
		if _, err := f.ReadAt(first, at); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, 0, fmt.Errorf("read meta page: %w", err)
		}
		m := first[pageHeaderSize:]
		u32 := func(i int) uint32 { return binary.LittleEndian.Uint32(m[i:]) }
		u64 := func(i int) uint64 { return binary.LittleEndian.Uint64(m[i:]) }
		sum := fnv.New64a()
		sum.Write(m[:metaSize-8])
		pageSize := uint64(u32(8))
		ok := u32(0) == boltMagic && u32(4) == boltVersion && sum.Sum64() == u64(metaSize-8) &&
			pageSize >= 1024 && pageSize <= 1<<16 && (at == 0 || uint64(at) == pageSize)
		if ok && (w == nil || u64(48) > newest) {
			newest, root = u64(48), u64(16)
			w = &pageWalk{file: f, pageSize: pageSize, pages: u64(40)}
		}
	}
	if w == nil {
		return nil, 0, fmt.Errorf("%w: no valid meta page in %d bytes", ErrCorrupt, size)
	}
	return w, root, nil
}

// read returns a page with its overflow.
func (w *pageWalk) read(id uint64) ([]byte, error) {
	if id < 2 || id >= w.pages {
		return nil, fmt.Errorf("%w: page %d is outside the file", ErrCorrupt, id)
	}
	if w.seen[id/64]&(1<<(id%64)) != 0 {
		return nil, w.bad(id, "is used twice")
	}
	w.seen[id/64] |= 1 << (id % 64)
	var head [pageHeaderSize]byte
	if _, err := w.file.ReadAt(head[:], int64(id*w.pageSize)); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	overflow := uint64(binary.LittleEndian.Uint32(head[12:]))
	if binary.LittleEndian.Uint64(head[:]) != id || overflow >= w.pages-id {
		return nil, w.bad(id, "has a bad header")
	}
	p := make([]byte, (overflow+1)*w.pageSize)
	if _, err := w.file.ReadAt(p, int64(id*w.pageSize)); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	return p, nil
}

// tree checks the page and all below it. Its keys must lie in [from, to);
// a nil end is open.
func (w *pageWalk) tree(id uint64, from, to []byte, depth int) error {
	if depth > pageDepthMax {
		return w.bad(id, "is too deep")
	}
	p, err := w.read(id)
	if err != nil {
		return err
	}
	return w.page(p, id, from, to, depth)
}

func (w *pageWalk) page(p []byte, id uint64, from, to []byte, depth int) error {
	flags := binary.LittleEndian.Uint16(p[8:])
	count := int(binary.LittleEndian.Uint16(p[10:]))
	bad := func(what string) error { return w.bad(id, what) }
	if flags != pageBranch && flags != pageLeaf {
		return bad("unknown kind")
	}
	if pageHeaderSize+count*pageElementSize > len(p) {
		return bad("too many elements")
	}
	if flags == pageBranch && count == 0 {
		return bad("branch without children")
	}
	elements := make([]pageElement, count)
	for i := range elements {
		e, ok := readElement(p, i, flags)
		switch {
		case !ok:
			return bad("element outside the page")
		case i > 0 && bytes.Compare(elements[i-1].key, e.key) >= 0:
			return bad("keys are not in order")
		case (i > 0 || flags == pageLeaf) && bytes.Compare(e.key, from) < 0, to != nil && bytes.Compare(e.key, to) >= 0:
			return bad("key outside its parent's range")
		}
		elements[i] = e
	}
	for i, e := range elements {
		if err := w.element(elements, i, flags, to, depth); err != nil {
			return fmt.Errorf("below key %.40q of page %d: %w", e.key, id, err)
		}
	}
	return nil
}

type pageElement struct {
	key, value []byte
	child      uint64
	bucket     bool
}

func readElement(p []byte, i int, flags uint16) (e pageElement, ok bool) {
	at := pageHeaderSize + i*pageElementSize
	u32 := func(off int) uint64 { return uint64(binary.LittleEndian.Uint32(p[at+off:])) }
	var pos, keySize, valueSize uint64
	if flags == pageBranch {
		pos, keySize = u32(0), u32(4)
		e.child = binary.LittleEndian.Uint64(p[at+8:])
	} else {
		pos, keySize, valueSize = u32(4), u32(8), u32(12)
		e.bucket = u32(0)&elementBucket != 0
	}
	begin := uint64(at) + pos
	if begin+keySize+valueSize > uint64(len(p)) {
		return e, false
	}
	e.key = p[begin : begin+keySize]
	e.value = p[begin+keySize : begin+keySize+valueSize]
	return e, true
}

// element goes into a child page or a bucket.
func (w *pageWalk) element(elements []pageElement, i int, flags uint16, to []byte, depth int) error {
	e := elements[i]
	if flags == pageBranch {
		if i+1 < len(elements) {
			to = elements[i+1].key
		}
		return w.tree(e.child, e.key, to, depth+1)
	}
	if !e.bucket {
		return nil
	}
	if len(e.value) < 16 {
		return fmt.Errorf("%w: short bucket header", ErrCorrupt)
	}
	if root := binary.LittleEndian.Uint64(e.value); root != 0 {
		return w.tree(root, nil, nil, depth+1)
	}
	inline := e.value[16:]
	if len(inline) < pageHeaderSize {
		return fmt.Errorf("%w: short inline bucket", ErrCorrupt)
	}
	if binary.LittleEndian.Uint16(inline[8:]) != pageLeaf {
		return fmt.Errorf("%w: inline bucket is not a leaf", ErrCorrupt)
	}
	return w.page(inline, 0, nil, nil, depth+1)
}

// guarded turns a panic or a fault while reading a damaged file into an error.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrCorrupt, p)
		}
	}()
	return f()
}
