package plant

// Bug is the name of a bug, as KVORUM_PLANTED has it.
type Bug string

// The bugs that the checks of a running cluster must catch.
const (
	DropAcknowledged Bug = "drop-acknowledged" // an acknowledged write is not stored
	StaleRead        Bug = "stale-read"        // a linearizable read does not wait for the leader's word
	SkipWatchEvent   Bug = "skip-watch-event"  // a watcher does not hear of a change
	ApplyTwice       Bug = "apply-twice"       // a command is applied a second time
	ExpireEarly      Bug = "expire-early"      // a lease ends before its time to live is over

	// SlowApply is no bug but a weak machine: a member applies at most 500
	// commands a second. The test of overload needs a capacity that is the same
	// on every machine.
	SlowApply Bug = "slow-apply"
)
