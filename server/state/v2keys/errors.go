package v2keys

import (
	"errors"

	"github.com/kvorum/kvorum/mvcc"
)

// ErrDamaged: a key under Prefix holds what no v2 command has written. Somebody
// has written there through the v3 API: delete the key the same way.
var ErrDamaged = errors.New("stored v2 node is damaged")

// Code is the number of an error in the v2 API.
type Code int

// The codes that a command or a read can be refused with.
const (
	CodeNotFound     Code = 100
	CodeCompare      Code = 101
	CodeNotFile      Code = 102
	CodeNotDirectory Code = 104
	CodeExists       Code = 105
	CodeRoot         Code = 107
	CodeNotEmpty     Code = 108
)

// Error is a refusal. Nothing has changed.
type Error struct {
	Code  Code
	Cause string // mostly the path that is in the way
	// Index is the newest revision at the time.
	Index mvcc.Revision
}

// Error tells what happened, for logs.
func (e *Error) Error() string {
	switch e.Code {
	case CodeNotFound:
		return "v2: no such key: " + e.Cause
	case CodeCompare:
		return "v2: compare failed: " + e.Cause
	case CodeNotFile:
		return "v2: not a file: " + e.Cause
	case CodeNotDirectory:
		return "v2: not a directory: " + e.Cause
	case CodeExists:
		return "v2: key exists: " + e.Cause
	case CodeRoot:
		return "v2: the root is read only"
	case CodeNotEmpty:
		return "v2: directory is not empty: " + e.Cause
	}
	return "v2: refused: " + e.Cause
}
