// Package version holds the two versions that Kvorum reports: the one of the
// API that it implements, which etcd's clients compare, and its own.
package version

import "runtime/debug"

const (
	// API is the etcd version whose interfaces this build implements, as strict
	// semver. Clients read it from Maintenance.Status and /version.
	API = "3.7.1"
	// Storage is the version of the files and the cluster version that this
	// build writes: API with patch 0.
	Storage = "3.7.0"
	// Kvorum is the version of this software.
	Kvorum = "0.1.0"
)

// Commit is the commit that the binary was built from, "unknown" when the
// build did not record it.
func Commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "unknown"
}
