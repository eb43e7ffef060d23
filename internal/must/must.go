// Package must holds the assertions that stay on in production.
//
// An assertion guards an invariant that only a bug can break, never an input
// that the world can send. A failed one panics: a member that no longer knows
// its own state must stop rather than go on.
package must

import "fmt"

// True panics with the formatted message unless ok holds.
func True(ok bool, format string, args ...any) {
	if !ok {
		panic("invariant broken: " + fmt.Sprintf(format, args...))
	}
}

// NoError panics with the step and the error unless err is nil. It is for
// errors that only a bug can cause, such as failing to decode what this
// process itself encoded a moment ago.
func NoError(err error, step string) {
	if err != nil {
		panic("invariant broken: " + step + ": " + err.Error())
	}
}
