//go:build planted

package plant

import (
	"os"
	"sync/atomic"
)

var planted = fromEnvironment()

func fromEnvironment() *atomic.Value {
	var v atomic.Value
	v.Store(Bug(os.Getenv("KVORUM_PLANTED")))
	return &v
}

// Here reports whether this bug was planted.
func Here(bug Bug) bool { return planted.Load() == any(bug) }

// Set plants a bug until undo is called; "" plants none. Tests of one process
// use it.
func Set(bug Bug) (undo func()) {
	old := planted.Swap(bug)
	return func() { planted.Store(old) }
}
