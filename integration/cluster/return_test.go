package cluster

import (
	"testing"

	"github.com/kvorum/kvorum/internal/process"
)

// If this fails, a member that was away so long that it is sent a snapshot stays out of service for seconds more, as it
// waits for the answer to a proposal that came with the snapshot.
func TestReturnBySnapshotServesAtOnce(t *testing.T) {
	t.Parallel()
	e := start(t, process.Options{Size: 3, Args: []string{"--snapshot-count", "10", "--snapshot-catchup-entries", "5"}})
	j := e.load(newRand(t), "back/", 4, 32)
	_, rest := e.followers()
	m := rest[0]
	e.avoid(m)
	const returns = 5
	late, snapshots := 0, 0
	for range returns {
		m.Kill()
		j.progress(100)
		from := mark(m)
		e.mustStart(m)
		if says(m, from, "installing snapshot from leader") {
			snapshots++
		}
		if says(m, from, "failed to publish") {
			late++
		}
	}
	if snapshots == 0 {
		t.Errorf("the member was sent no snapshot:\n%s", m.LogTail(20))
	}
	if late > 1 { // one may be for want of a leader
		t.Errorf("late %d times out of %d:\n%s", late, returns, m.LogTail(30))
	}
	j.finish()
}
