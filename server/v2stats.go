package server

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/raft/peer"
	"github.com/kvorum/kvorum/server/v2http"
)

// linkStats is what /v2/stats tells of the links to the other members. It
// stands beside the metrics as an observer of the transport.
type linkStats struct {
	peer.Observer                // the metrics
	sentAppends, receivedAppends atomic.Uint64

	mu    sync.Mutex
	trips map[uint64]*tripStats // guarded by mu; by member
}

// tripStats sums up round trips to one member, in milliseconds.
type tripStats struct {
	n                                   uint64
	current, sum, squares, least, worst float64
}

// RoundTrip implements peer.Observer.
func (l *linkStats) RoundTrip(to uint64, d time.Duration) {
	l.Observer.RoundTrip(to, d)
	millis := float64(d) / float64(time.Millisecond)
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.trips[to]
	if t == nil {
		t = &tripStats{least: math.MaxFloat64}
		l.trips[to] = t
	}
	t.n++
	t.current, t.sum, t.squares = millis, t.sum+millis, t.squares+millis*millis
	t.least, t.worst = min(t.least, millis), max(t.worst, millis)
}

// of gives the round trips to one member; none measured is all zeros.
func (l *linkStats) of(id uint64) (latency v2http.LatencyStats, n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.trips[id]
	if t == nil {
		return v2http.LatencyStats{}, 0
	}
	mean := t.sum / float64(t.n)
	deviation := math.Sqrt(max(0, t.squares/float64(t.n)-mean*mean))
	return v2http.LatencyStats{Current: t.current, Average: mean, StandardDeviation: deviation, Minimum: t.least, Maximum: t.worst}, t.n
}

// countedTransport counts the appends that a leader sends.
type countedTransport struct {
	*peer.Transport
	stats *linkStats
}

// Send implements raft.Transport.
func (t countedTransport) Send(msgs []*raft.Message) {
	if n := raft.Appends(msgs...); n > 0 {
		t.stats.sentAppends.Add(n)
	}
	t.Transport.Send(msgs)
}

// SelfStats implements v2http.Member.
func (m v2Member) SelfStats() v2http.SelfStats {
	leader := uint64(m.node.Leader())
	return v2http.SelfStats{
		Name: m.cfg.Name, ID: uint64(m.self), Leader: leader, Leading: m.leading(),
		Started: m.started, LeaderSince: time.Unix(0, m.leaderSince.Load()),
		ReceivedAppendEntries: m.links.receivedAppends.Load(), SentAppendEntries: m.links.sentAppends.Load(),
	}
}

// FollowerStats implements v2http.Member.
func (m v2Member) FollowerStats() map[uint64]v2http.FollowerStats {
	all := map[uint64]v2http.FollowerStats{}
	for _, s := range m.transport.Stats() {
		if s.Remote {
			continue
		}
		latency, passes := m.links.of(s.ID)
		all[s.ID] = v2http.FollowerStats{Latency: latency, Passes: passes, Fails: s.SendFailures}
	}
	return all
}

// Leader implements v2http.Member.
func (m v2Member) Leader() uint64 { return uint64(m.node.Leader()) }
