package wal


// Membership is what a .snap file says of the cluster beyond raft's own
// ConfState.
type Membership struct {
	Members        []Member // in any order
	Removed        []uint64 // ids of removed members, in any order
	ClusterVersion string   // "3.7.0"; empty if not decided
}

// Member is one member of the cluster. ClientURLs is empty until the member has
// published itself.
type Member struct {
	ID         uint64
	Name       string
	PeerURLs   []string
	ClientURLs []string
	IsLearner  bool
}
