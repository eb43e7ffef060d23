package v2keys

import "strings"

// Prefix is what every key of this package begins with. Keys from Prefix to
// PrefixEnd belong to it.
const (
	Prefix    = "\x00v2"
	PrefixEnd = "\x00v3"
)

// Root is the path of the directory that holds all others.
const Root = "/"

// removalKey holds the last removal. It sorts outside of all paths.
const removalKey = Prefix + "!last-removal"

// Key is the key of a node.
func Key(path string) string { return Prefix + path }

// Below is the range of the keys of all nodes below a directory.
func Below(path string) (from, to string) {
	if path == Root {
		return Prefix + "/", Prefix + "0"
	}
	return Prefix + path + "/", Prefix + path + "0"
}

// IsKey reports whether a key of the store belongs to this package.
func IsKey[T ~string | ~[]byte](key T) bool {
	return len(key) >= len(Prefix) && string(key[:len(Prefix)]) == Prefix
}

// Touches reports whether a range of keys, as requests give it, holds keys of
// this package.
func Touches(key, end []byte) bool {
	switch {
	case len(end) == 0:
		return IsKey(key)
	case len(end) == 1 && end[0] == 0:
		return string(key) < PrefixEnd
	}
	return string(key) < PrefixEnd && string(end) > Prefix
}

// join is a path and one more element.
func join(dir, name string) string {
	if dir == Root {
		return Root + name
	}
	return dir + "/" + name
}

// parent is the directory of a path that is not the root.
func parent(path string) string {
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		return path[:i]
	}
	return Root
}

// Hidden reports whether a path that is below dir has an element below it that
// begins with an underscore: lists of dir leave it out.
func Hidden(dir, path string) bool {
	if dir != Root {
		path = path[len(dir):]
	}
	return strings.Contains(path, "/_")
}

// IsBelow reports whether path is below dir.
func IsBelow(dir, path string) bool {
	if dir == Root {
		return path != Root
	}
	return len(path) > len(dir) && path[len(dir)] == '/' && path[:len(dir)] == dir
}
