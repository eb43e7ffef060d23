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

// The bugs that only a crash, a lost message or a change of members at the wrong
// moment shows, which the simulation must catch.
const (
	VoteUnsynced        Bug = "vote-unsynced"         // a vote is sent before it is durable
	AskBeforeTerm       Bug = "ask-before-term"       // votes are asked for before the own term is durable
	CommitBelowSnapshot Bug = "commit-below-snapshot" // a snapshot record is written without a commit index that covers it
	TailKept            Bug = "tail-kept"             // what lies behind the last record is not cleared when a log is opened
	TailTrusted         Bug = "tail-trusted"          // what a process finds in the log is taken for durable
	PromoteAgain        Bug = "promote-again"         // a leader gives all leases their time anew in the middle of its term
	ConfChangeTwice     Bug = "conf-change-twice"     // raft hears again of a membership change that it was started with
	AnswerUnsynced      Bug = "answer-unsynced"       // entries are acknowledged to the leader before they are durable
)
