//go:build !failpoints

package crash

// Here is where a test build may kill the process; in this build it does
// nothing. The name is "package/what-comes-next".
func Here(string) {}
