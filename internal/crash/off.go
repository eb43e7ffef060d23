//go:build !failpoints

package crash

// On says whether the points can be armed in this build.
const On = false

// Here is a point that a test build may arm; in this build it does nothing.
func Here(string) {}

// Set reports whether the named fault is to happen: in this build, never.
func Set(string) bool { return false }
