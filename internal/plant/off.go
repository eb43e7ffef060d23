//go:build !planted

package plant

// Here reports whether this bug was planted.
func Here(Bug) bool { return false }
