package v2keys

import (
	"strings"

	"github.com/kvorum/kvorum/mvcc"
)

// Look reads a node from the newest published state.
func Look(store *mvcc.Store, path string, recursive bool) (*Node, error) {
	return mvcc.Look(store, func(p mvcc.Picture) (*Node, error) { return Get(p, path, recursive) })
}

// Get reads a node. A directory comes with its children; recursive, with all
// that is below it. Hidden nodes are left out of both. The error is an *Error
// or ErrDamaged.
func Get(p mvcc.Picture, path string, recursive bool) (*Node, error) {
	n, missing, err := find(p, path)
	if err != nil {
		return nil, err
	}
	if missing != "" {
		return nil, &Error{Code: CodeNotFound, Cause: missing, Index: p.Revision()}
	}
	if n.Dir {
		err = fill(p, n, recursive)
	}
	return n, err
}

// find returns the node at path. Where there is none, missing is the first
// element of the path that does not exist; a file in the way is CodeNotDirectory.
func find(p mvcc.Picture, path string) (n *Node, missing string, err error) {
	if path == Root {
		return &Node{Path: Root, Dir: true}, "", nil
	}
	if n, err = load(p, path); n != nil || err != nil {
		return n, "", err
	}
	// The nearest directory that exists has all above it.
	for missing = path; ; {
		dir := parent(missing)
		if dir == Root {
			return nil, missing, nil
		}
		above, err := load(p, dir)
		switch {
		case err != nil:
			return nil, "", err
		case above == nil:
			missing = dir
		case above.Dir:
			return nil, missing, nil
		default:
			return nil, "", &Error{Code: CodeNotDirectory, Cause: dir, Index: p.Revision()}
		}
	}
}

// load reads one stored node, nil if there is none.
func load(p mvcc.Picture, path string) (*Node, error) {
	kv, err := p.Get(Key(path))
	if kv == nil || err != nil {
		return nil, err
	}
	s, err := decode(kv)
	if err != nil {
		return nil, err
	}
	return &s.Node, nil
}

// fill hangs what is below a directory into it.
func fill(p mvcc.Picture, dir *Node, recursive bool) error {
	from, to := Below(dir.Path)
	pick := func(key string) (bool, string) { return pickChild(from, key) }
	if recursive {
		pick = func(key string) (bool, string) { return pickBelow(from, key) }
	}
	kvs, err := p.List(from, to, pick)
	if err != nil {
		return err
	}
	dirs := map[string]*Node{dir.Path: dir}
	for _, kv := range kvs {
		s, err := decode(kv)
		if err != nil {
			return err
		}
		// A key that somebody has written past this package may have no parent.
		if above := dirs[parent(s.Path)]; above != nil {
			above.Nodes = append(above.Nodes, &s.Node)
		}
		if s.Dir && recursive {
			dirs[s.Path] = &s.Node
		}
	}
	return nil
}

// pickChild wants the children alone, and jumps over what is below each.
func pickChild(from, key string) (wanted bool, next string) {
	rest := key[len(from):]
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return false, afterTree(from + rest[:i])
	}
	return rest != "" && rest[0] != '_', ""
}

// pickBelow wants all but the hidden, and jumps over what is below those.
func pickBelow(from, key string) (wanted bool, next string) {
	rest := key[len(from):]
	if rest == "" {
		return false, ""
	}
	at := 0
	if rest[0] != '_' {
		i := strings.Index(rest, "/_")
		if i < 0 {
			return true, ""
		}
		at = i + 1
	}
	if i := strings.IndexByte(rest[at:], '/'); i >= 0 {
		return false, afterTree(from + rest[:at+i])
	}
	return false, ""
}

// afterTree is the first key behind all that is below the node with a key.
func afterTree(key string) string { return key + "0" }

// Used reports whether there are any v2 keys.
func Used(p mvcc.Picture) bool { return p.Has(Prefix, PrefixEnd) }
