// Package cluster tests clusters of real processes of cmd/kvorum under faults:
// kill -9, stopped processes, full disks, cut links, damaged files, crashes at
// every named point of the code.
//
// Its words: a *journal* records every write that was acknowledged, with its
// revision. After the faults, every one of them must be there as it was
// acknowledged, and all members must hold the same.
//
// A run takes minutes with KVORUM_LONG=1, and short rounds of everything
// otherwise. Chance comes from a seed that is printed; KVORUM_SEED=n replays
// its choices. KVORUM_BIN names a server to test instead of building one.
package cluster
